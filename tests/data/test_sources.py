import shutil
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_limited_to
from PIL import Image
from project import params
from sklearn.datasets import load_digits
from sources import convert
from torchvision.transforms import CenterCrop, Resize

from us3l.data.store import FILES, Store, open_store
from us3l.params.dataset import Digits, Folder
from us3l.params.params import Params
from us3l.pipeline.code import code
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.stages.prepare import prepare
from us3l.utils.errors import UserError
from us3l.utils.records import read_record


def prepared_digits(folder: Path, test_fraction: float = 0.25) -> Store:
    convert(Digits(kind="digits", test_fraction=test_fraction), folder, folder / "downloads")
    return open_store(folder)


def test_digits_fill_the_range_of_a_byte(tmp_path: Path) -> None:
    store = prepared_digits(tmp_path)
    assert store.train.images.shape == (1347, 8, 8, 1)
    assert store.test.images.shape == (450, 8, 8, 1)
    assert np.unique(store.train.images).tolist() == [round(value * 255 / 16) for value in range(17)]
    assert store.classes == tuple("0123456789")


def test_digits_keep_their_labels(tmp_path: Path) -> None:
    store = prepared_digits(tmp_path)
    digits = load_digits()
    known = {image.astype(int).tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    for split in (store.train, store.test):
        originals = np.rint(split.images[..., 0] / (255 / 16)).astype(int)
        assert [known[image.tobytes()] for image in originals] == split.labels.tolist()


def test_digits_are_split_alike_in_every_class_and_every_time(tmp_path: Path) -> None:
    store = prepared_digits(tmp_path / "a")
    shares = np.bincount(store.test.labels) / (np.bincount(store.test.labels) + np.bincount(store.train.labels))
    np.testing.assert_allclose(shares, 0.25, atol=0.005)
    assert prepared_digits(tmp_path / "b").sha256 == store.sha256


def test_a_test_fraction_with_too_few_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test_fraction 0\.001"):
        prepared_digits(tmp_path, 0.001)


def test_a_full_disk_leaves_nothing_of_a_data_set(tmp_path: Path) -> None:
    with files_limited_to(50_000), pytest.raises(UserError, match="the disk is full"):
        prepared_digits(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_preparing_writes_a_record_of_what_the_arrays_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = PrepareJob(Plan(Params.model_validate(params())).dataset("digits"))
    prepare(job, Path("downloads"))
    assert {path for path in Path().rglob("*") if path.is_file()} == {*job.outputs}
    record = read_record(job.record)
    told = {key: record[key] for key in ("stage", "params", "code", "data", "gpu_hours")}
    assert told == {
        "stage": "prepare",
        "params": {"kind": "digits", "test_fraction": 0.95},
        "code": code("prepare"),
        "data": open_store(job.data.folder).sha256,
        "gpu_hours": 0.0,
    }


def test_a_data_set_that_cannot_be_made_has_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = PrepareJob(Plan(Params.model_validate(params())).dataset("digits"))
    with files_limited_to(50_000), pytest.raises(UserError, match="the disk is full"):
        prepare(job, Path("downloads"))
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 15), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A training folder of 10 cats and 5 dogs, of different image formats, beside a test folder of 2 and 1."""
    for number in range(10):
        write_image(tmp_path / f"train/cat/{number}.png", number)
    for number, suffix in enumerate(["jpg", "PNG", "bmp", "webp", "tiff"]):
        write_image(tmp_path / f"train/dog/{number}.{suffix}", 10 + number, (15, 20))
    for number in range(2):
        write_image(tmp_path / f"test/cat/{number}.png", 20 + number)
    write_image(tmp_path / "test/dog/0.png", 30, mode="L")
    return tmp_path


def prepared_pets(pets: Path, test_fraction: float | None = None) -> Store:
    test = str(pets / "test") if test_fraction is None else None
    source = Folder(kind="folder", train=str(pets / "train"), test=test, test_fraction=test_fraction, image_size=8)
    convert(source, pets / "store", pets / "downloads")
    return open_store(pets / "store")


def assert_refused(pets: Path, reason: str, test_fraction: float | None = None) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        prepared_pets(pets, test_fraction)
    assert "\n" not in str(caught.value)
    assert not (pets / "store").exists() or list((pets / "store").iterdir()) == []


def test_class_folders_become_a_store(pets: Path) -> None:
    (pets / "train/cat/notes.txt").write_text("not an image")
    (pets / "train/README").write_text("not a class")
    store = prepared_pets(pets)
    assert store.classes == ("cat", "dog")
    assert store.train.labels.tolist() == [0] * 10 + [1] * 5
    assert store.test.labels.tolist() == [0, 0, 1]
    assert store.train.images.shape == (15, 8, 8, 3)


def test_images_are_resized_and_cropped_as_torchvision_does(pets: Path) -> None:
    store = prepared_pets(pets)
    for index, path in [(3, pets / "train/cat/3.png"), (11, pets / "train/dog/1.PNG"), (13, pets / "train/dog/3.webp")]:
        expected = CenterCrop(8)(Resize(8)(Image.open(path).convert("RGB")))
        np.testing.assert_array_equal(store.train.images[index], np.asarray(expected))


def test_grey_images_become_rgb(pets: Path) -> None:
    grey = prepared_pets(pets).test.images[2]
    np.testing.assert_array_equal(grey[..., 0], grey[..., 1])
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_more_images_than_are_decoded_at_a_time_keep_their_order(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepared_pets(pets).sha256
    monkeypatch.setattr("us3l.data.store.BLOCK", 4)
    assert prepared_pets(pets).sha256 == whole


def test_relative_paths_start_at_the_current_directory(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets)
    convert(Folder(kind="folder", train="train", test="test", image_size=8), Path("store"), Path("downloads"))
    assert sorted(path.name for path in (pets / "store").iterdir()) == sorted(FILES)


def test_a_held_out_fraction_is_taken_from_every_class(pets: Path) -> None:
    store = prepared_pets(pets, 0.2)
    assert np.bincount(store.train.labels).tolist() == [8, 4]
    assert np.bincount(store.test.labels).tolist() == [2, 1]
    together = {image.tobytes() for image in [*store.train.images, *store.test.images]}
    assert len(together) == 15
    assert prepared_pets(pets, 0.2).sha256 == store.sha256


@pytest.mark.parametrize(("fraction", "counts"), [(0.01, [1, 1]), (0.99, [9, 4])])
def test_every_class_keeps_an_image_on_both_sides(pets: Path, fraction: float, counts: list[int]) -> None:
    assert np.bincount(prepared_pets(pets, fraction).test.labels).tolist() == counts


def test_what_is_held_out_of_a_class_does_not_depend_on_other_classes(pets: Path) -> None:
    def held_out_dogs(store: Store) -> np.ndarray:
        return store.test.images[store.test.labels == store.classes.index("dog")]

    before = held_out_dogs(prepared_pets(pets, 0.4))
    for number in range(7):
        write_image(pets / f"train/bird/{number}.png", 40 + number)
    np.testing.assert_array_equal(held_out_dogs(prepared_pets(pets, 0.4)), before)


def test_a_class_with_one_image_cannot_be_split(pets: Path) -> None:
    write_image(pets / "train/emu/0.png")
    assert_refused(pets, "train/emu: one image", 0.5)


@pytest.mark.parametrize("folder", ["train", "test"])
def test_an_absent_folder_is_named_by_its_absolute_path(
    pets: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(pets / folder)
    monkeypatch.chdir(pets)
    with pytest.raises(UserError, match=f"^{pets / folder}: there is no such folder"):
        convert(Folder(kind="folder", train="train", test="test", image_size=8), pets / "store", pets / "downloads")


def test_a_folder_without_class_folders_is_refused(pets: Path) -> None:
    shutil.rmtree(pets / "train")
    write_image(pets / "train/0.png")
    assert_refused(pets, "train: there are no class folders")


def test_a_folder_with_one_class_is_refused(pets: Path) -> None:
    shutil.rmtree(pets / "train/dog")
    assert_refused(pets, "train: there is only the class folder cat")


def test_a_class_without_images_is_refused(pets: Path) -> None:
    (pets / "train/emu").mkdir()
    (pets / "train/emu/notes.txt").write_text("not an image")
    assert_refused(pets, "train/emu: the class has no images")


def test_a_test_folder_with_other_classes_is_refused(pets: Path) -> None:
    (pets / "test/dog").rename(pets / "test/wolf")
    assert_refused(pets, "only one of them has the classes dog, wolf")


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_an_image_that_cannot_be_read_is_named(pets: Path, content: bytes | str) -> None:
    image = pets / "train/cat/5.png"
    image.write_bytes(image.read_bytes()[:200] if isinstance(content, str) else content)
    assert_refused(pets, r"train/cat/5\.png: not a readable image")


def test_a_broken_link_is_not_skipped(pets: Path) -> None:
    (pets / "train/cat/gone.png").symlink_to(pets / "nowhere.png")
    assert_refused(pets, r"train/cat/gone\.png: not a readable image")
