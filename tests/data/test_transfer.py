import hashlib
import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from odd_files import odd_file
from PIL import Image
from pydantic import ValidationError
from scipy.io import savemat
from sources import convert
from torchvision import datasets
from torchvision.transforms import CenterCrop, Compose, Resize

from us3l.data.store import Store, open_store
from us3l.params.dataset import Transfer
from us3l.utils.errors import UserError

SIZE = 8


def write_image(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(str(path.name).encode() + path.parent.name.encode()).digest()[:4])
    noise = np.random.default_rng(seed).integers(0, 256, (13, 17, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b/data"
    for name in ("1", "2", "3", "4"):
        write_image(data / f"images/{name}.jpg")
    (data / "variants.txt").write_text("707-320\nA 300\n")
    (data / "images_variant_trainval.txt").write_text("2 A 300\n1 707-320\n")
    (data / "images_variant_test.txt").write_text("3 707-320\n4 A 300\n")


def caltech101(root: Path) -> None:
    for name, count in (("BACKGROUND_Google", 1), ("ant", 31), ("bass", 33)):
        for number in range(1, count + 1):
            mode = "L" if number == 1 else "RGB"
            write_image(root / f"caltech101/101_ObjectCategories/{name}/image_{number:04d}.jpg", mode)


def dtd(root: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        names = [f"{texture}/{texture}_{number}.jpg" for texture in ("woven", "banded")]
        for name in names:
            write_image(root / "dtd/dtd/images" / name)
        for partition, listed in ((1, names), (2, names[:1])):
            labels = root / f"dtd/dtd/labels/{part}{partition}.txt"
            labels.parent.mkdir(exist_ok=True)
            labels.write_text("".join(f"{name}\n" for name in listed))


def flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    for number in range(1, 7):
        write_image(folder / f"jpg/image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[5, 5, 1, 102, 7, 1]])})
    savemat(folder / "setid.mat", {"trnid": [[6, 1]], "valid": [[2, 4]], "tstid": [[3, 5]]})


def food101(root: Path) -> None:
    (root / "food-101/meta").mkdir(parents=True)
    for part, numbers in (("train", (1, 2)), ("test", (3, 4))):
        names = {food: [f"{food}/{number}" for number in numbers] for food in ("waffles", "apple_pie")}
        (root / f"food-101/meta/{part}.json").write_text(json.dumps(names))
        for name in (name for listed in names.values() for name in listed):
            write_image(root / f"food-101/images/{name}.jpg")


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, number in (("trainval", 1), ("test", 2)):
        lines = [f"great_pyrenees_{number} 2 2 1\n", f"Abyssinian_{number} 1 1 1\n"]
        (folder / f"annotations/{part}.txt").write_text("".join(lines))
        for line in lines:
            write_image(folder / f"images/{line.split()[0]}.jpg")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    layout.__name__: layout for layout in (aircraft, caltech101, dtd, flowers102, food101, pets)
}
OFFICIAL = {
    "aircraft": (datasets.FGVCAircraft, ["trainval"]),
    "dtd": (datasets.DTD, ["train", "val"]),
    "flowers102": (datasets.Flowers102, ["train", "val"]),
    "food101": (datasets.Food101, ["train"]),
    "pets": (datasets.OxfordIIITPet, ["trainval"]),
}
FOLDERS = {
    "aircraft": "fgvc-aircraft-2013b",
    "caltech101": "caltech101/101_ObjectCategories",
    "dtd": "dtd/dtd",
    "flowers102": "flowers-102/jpg",
    "food101": "food-101/images",
    "pets": "oxford-iiit-pet/images",
}


@pytest.fixture(autouse=True)
def tiny_flowers(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision knows the official annotations of Flowers-102 by their md5; tiny ones have another."""
    files = {key: (name, None) for key, (name, _) in datasets.Flowers102._file_dict.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", files)


def prepared(root: Path, kind: str, test_fraction: float | None = None, size: int | None = SIZE) -> Store:
    source = Transfer(kind=kind, root=str(root), image_size=size, test_fraction=test_fraction)
    convert(source, root / "store", root / "downloads")
    return open_store(root / "store")


def square(image: Image.Image) -> np.ndarray:
    return np.asarray(Compose([Resize(SIZE), CenterCrop(SIZE)])(image.convert("RGB")))


@pytest.mark.parametrize("kind", OFFICIAL)
def test_images_and_labels_are_those_of_torchvision(tmp_path: Path, kind: str) -> None:
    LAYOUTS[kind](tmp_path)
    store = prepared(tmp_path, kind)
    reader, train = OFFICIAL[kind]
    for split, parts in ((store.train, train), (store.test, ["test"])):
        expected = [pair for part in parts for pair in reader(str(tmp_path), split=part)]
        assert split.labels.tolist() == [label for _, label in expected]
        np.testing.assert_array_equal(split.images, np.stack([square(image) for image, _ in expected]))
    assert store.classes == tuple(reader(str(tmp_path), split="test").classes)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_images_may_stay_in_their_files(tmp_path: Path, kind: str) -> None:
    LAYOUTS[kind](tmp_path)
    squares, files = prepared(tmp_path, kind), prepared(tmp_path, kind, size=None)
    for part, expected in ((files.train, squares.train), (files.test, squares.test)):
        assert part.labels.tolist() == expected.labels.tolist()
        contents = [part.images.read(index) for index in range(len(part.images))]
        seen = [square(Image.open(BytesIO(content))) for content in contents]
        np.testing.assert_array_equal(np.stack(seen), expected.images)


@pytest.mark.parametrize(("fraction", "counts"), [(None, [1, 3]), (0.5, [16, 16])])
def test_caltech_is_split_by_class_and_holds_every_image_once(
    tmp_path: Path, fraction: float | None, counts: list[int]
) -> None:
    caltech101(tmp_path)
    store = prepared(tmp_path, "caltech101", fraction)
    assert store.classes == ("ant", "bass")
    assert np.bincount(store.test.labels).tolist() == counts
    found = [
        (image.tobytes(), label)
        for split in (store.train, store.test)
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    ]
    expected = [(square(image).tobytes(), label) for image, label in datasets.Caltech101(str(tmp_path))]
    assert sorted(found) == sorted(expected)
    assert prepared(tmp_path, "caltech101", fraction).sha256 == store.sha256


def test_a_caltech_class_of_30_images_is_refused(tmp_path: Path) -> None:
    caltech101(tmp_path)
    (tmp_path / "caltech101/101_ObjectCategories/ant/image_0031.jpg").unlink()
    with pytest.raises(UserError, match="ant: 30 images are too few for 30 of training and one of test; give test_"):
        prepared(tmp_path, "caltech101")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_an_absent_folder_is_named_with_what_brings_it(tmp_path: Path, kind: str) -> None:
    LAYOUTS[kind](tmp_path)
    prepared(tmp_path, kind)
    shutil.rmtree(tmp_path / FOLDERS[kind])
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, kind)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / FOLDERS[kind]}: there is no such folder; set download: true")
    assert "https://" in message and "kind: folder" in message and "\n" not in message


def test_nothing_is_made_where_caltech_is_absent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        prepared(tmp_path, "caltech101")
    assert list(tmp_path.iterdir()) == []


def test_absent_annotations_are_told_in_one_sentence(tmp_path: Path) -> None:
    pets(tmp_path)
    (tmp_path / "oxford-iiit-pet/annotations/test.txt").unlink()
    with pytest.raises(UserError, match=r"torchvision cannot read the data set \(.*test\.txt.*\); get it from https"):
        prepared(tmp_path, "pets")


def test_splits_of_different_classes_are_refused(tmp_path: Path) -> None:
    dtd(tmp_path)
    (tmp_path / "dtd/dtd/labels/val1.txt").write_text("woven/woven_1.jpg\n")
    with pytest.raises(UserError, match="training and test have different classes"):
        prepared(tmp_path, "dtd")


def test_a_download_is_left_to_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(reader: datasets.OxfordIIITPet) -> None:
        if not (tmp_path / "oxford-iiit-pet").exists():
            pets(tmp_path)

    monkeypatch.setattr(datasets.OxfordIIITPet, "_download", download)
    convert(Transfer(kind="pets", root=str(tmp_path), image_size=SIZE, download=True), tmp_path / "store", tmp_path)
    assert len(open_store(tmp_path / "store").train.labels) == 2


def test_a_failed_download_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(reader: datasets.DTD) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(datasets.DTD, "_download", download)
    with pytest.raises(UserError, match=r"cannot read the data set \(no route to host\); get it from https"):
        convert(Transfer(kind="dtd", root=str(tmp_path), image_size=SIZE, download=True), tmp_path / "store", tmp_path)


def test_only_caltech_takes_a_test_fraction() -> None:
    with pytest.raises(ValidationError, match="is for caltech101 only: pets has an official test set"):
        Transfer(kind="pets", root="pets", image_size=SIZE, test_fraction=0.5)


def test_downloading_is_not_part_of_the_recipe() -> None:
    assert Transfer(kind="pets", root="pets", image_size=8, download=True).model_dump() == {
        "kind": "pets",
        "root": "pets",
        "image_size": 8,
        "test_fraction": None,
    }


@pytest.mark.parametrize(
    ("kind", "make", "name"),
    [
        ("flowers102", flowers102, "flowers-102/setid.mat"),
        ("food101", food101, "food-101/meta/train.json"),
        ("dtd", dtd, "dtd/dtd/labels/train1.txt"),
    ],
)
@pytest.mark.parametrize(
    ("odd", "said"), [("pipe", "a pipe or a device, and no file"), ("huge", "bytes are more than the")]
)
def test_a_list_of_images_that_is_no_file_is_refused_before_torchvision_waits_for_it(
    tmp_path: Path, kind: str, make: Callable[[Path], None], name: str, odd: str, said: str
) -> None:
    make(tmp_path)
    (tmp_path / name).unlink()
    odd_file(tmp_path, odd).rename(tmp_path / name)
    with pytest.raises(UserError, match=f"^{tmp_path / name}: cannot be read .*{said}.*; get it again from https://"):
        convert(Transfer(kind=kind, root=str(tmp_path), image_size=SIZE), tmp_path / "store", tmp_path / "downloads")
