"""Stores of images that stay in their files."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import write
from PIL import Image
from sources import convert

from us3l.data.files import Files
from us3l.data.store import Store, open_store
from us3l.params.dataset import Folder
from us3l.utils.errors import UserError


@pytest.fixture(autouse=True)
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a training folder of 3 cats and 2 dogs and a test folder of one each."""
    folder = tmp_path / "project"
    for split, cats, dogs in (("train", 3, 2), ("val", 1, 1)):
        for name, count in (("cat", cats), ("dog", dogs)):
            for index in range(count):
                write(folder / f"raw/{split}/{name}/{index}.jpg", len(name + split) + index, 10 + index, 12)
    monkeypatch.chdir(folder)
    return folder


def prepared(root: Path = Path("raw"), store: Path = Path("data/pets")) -> Store:
    convert(Folder(kind="folder", train=str(root / "train"), test=str(root / "val")), store, Path("downloads"))
    return open_store(store)


def files(store: Store) -> Files:
    assert isinstance(store.train.images, Files)
    return store.train.images


def test_a_store_lists_the_files_with_what_they_hold() -> None:
    store = prepared()
    assert store.classes == ("cat", "dog")
    assert store.channels == 3
    assert store.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert store.test.labels.tolist() == [0, 1]
    table = files(store).table
    assert table["path"].tolist() == [b"cat/0.jpg", b"cat/1.jpg", b"cat/2.jpg", b"dog/0.jpg", b"dog/1.jpg"]
    assert table["height"].tolist() == [10, 11, 12, 10, 11]
    assert table["width"].tolist() == [12] * 5
    content = Path("raw/train/dog/1.jpg").read_bytes()
    assert table["bytes"][4] == len(content)
    assert table["sha256"][4].decode() == hashlib.sha256(content).hexdigest()
    assert files(store).read(4) == content


def test_the_hash_depends_on_files_labels_and_classes_and_not_on_where_they_are(pets: Path) -> None:
    here = prepared().sha256
    shutil.copytree(pets / "raw", pets.parent / "elsewhere")
    assert prepared(pets.parent / "elsewhere").sha256 == here
    hashes = {here}
    write(pets / "raw/train/cat/0.jpg", 99, 10, 12)
    hashes.add(prepared().sha256)
    (pets / "raw/train/cat/2.jpg").rename(pets / "raw/train/dog/2.jpg")
    hashes.add(prepared().sha256)
    for split in ("train", "val"):
        (pets / f"raw/{split}/dog").rename(pets / f"raw/{split}/wolf")
    hashes.add(prepared().sha256)
    assert len(hashes) == 4


def test_a_project_is_moved_with_its_images(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared()
    moved = pets.rename(pets.parent / "moved")
    (pets.parent / "beside").mkdir()
    (pets.parent / "beside/data").symlink_to(moved / "data")
    for folder in (moved, pets.parent / "beside"):
        monkeypatch.chdir(folder)
        files(open_store(Path("data/pets"))).read(0)


def test_a_store_on_another_disk_finds_the_images_of_the_project(pets: Path) -> None:
    (pets.parent / "disk/deep").mkdir(parents=True)
    (pets / "data").symlink_to(pets.parent / "disk/deep")
    files(prepared()).read(0)


def test_images_outside_the_project_are_found_from_anywhere(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pets / "raw").rename(pets.parent / "raw")
    prepared(Path("../raw").resolve())
    moved = pets.rename(pets.parent / "deeper")
    monkeypatch.chdir("/")
    assert files(open_store(moved / "data/pets")).folder == pets.parent / "raw/train"


def test_names_of_any_bytes_are_kept() -> None:
    name = b"raw/train/cat/caf\xe9 \xf0\x9f\x90\xb1.jpg"
    Path("raw/train/cat/1.jpg").rename(os.fsdecode(name))
    files(prepared()).read(2)


def test_an_absent_file_and_one_of_another_size_are_named_when_the_store_is_opened(pets: Path) -> None:
    prepared()
    image, remedy = pets / "raw/val/dog/0.jpg", "put it back, or run `us3l prepare --force` for the images in"
    content = image.read_bytes()
    image.write_bytes(content + b"more")
    sizes = f"has {len(content) + 4} bytes, and had {len(content)} when the data set was prepared"
    with pytest.raises(UserError, match=rf"raw/val/dog/0\.jpg: {sizes}; {remedy}"):
        open_store(Path("data/pets"))
    image.unlink()
    with pytest.raises(UserError, match=rf"raw/val/dog/0\.jpg: cannot be found \(No such file.*\); {remedy}"):
        open_store(Path("data/pets"))


@pytest.mark.parametrize("kept", [0, 100, -30])
def test_an_image_that_cannot_be_read_is_named_when_the_data_set_is_prepared(pets: Path, kept: int) -> None:
    image = pets / "raw/train/cat/2.jpg"
    image.write_bytes(image.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"^{image}: not a readable image \(.*\); replace or remove it$"):
        prepared()
    assert not [path for path in Path("data").rglob("*") if path.is_file()]


def test_a_grey_or_transparent_image_is_prepared_and_read() -> None:
    Image.new("L", (9, 9), 7).save("raw/train/cat/3.png")
    Image.new("LA", (9, 9), (7, 9)).save("raw/train/cat/4.png")
    assert files(prepared()).table["width"].tolist()[:5] == [12, 12, 12, 9, 9]


@pytest.mark.parametrize("field", ["path", "bytes", "height", "sha256"])
def test_an_edited_table_is_refused(field: str) -> None:
    table = np.array(files(prepared()).table)
    table[field][1] = table[field][0] if field != "bytes" else 3
    np.save("data/pets/train_images.npy", table)
    with pytest.raises(UserError, match=r"pets: the prepared data set is damaged .* run `us3l prepare pets` again"):
        open_store(Path("data/pets"))


def test_a_table_with_other_columns_is_refused() -> None:
    table = np.array(files(prepared()).table)
    table.dtype.names = ("path", "bytes", "width", "height", "sha256")  # the bytes stay the same
    np.save("data/pets/train_images.npy", table)
    with pytest.raises(UserError, match=r"is damaged \(train_images\.npy holds"):
        open_store(Path("data/pets"))


@pytest.mark.parametrize("change", [{"folders": None}, {"folders": {}}, {"shape": [4, 4, 3]}])
def test_a_meta_json_that_does_not_fit_the_table_is_refused(change: dict[str, object]) -> None:
    prepared()
    meta = Path("data/pets/meta.json")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | change))
    with pytest.raises(UserError, match="is damaged"):
        open_store(Path("data/pets"))


def test_an_absent_folder_is_named_with_the_page_of_the_images(pets: Path) -> None:
    source = Folder(kind="folder", train="gone", test="gone", page="https://images.example/get")
    message = rf"^{pets}/gone: there is no such folder; .*, or get the images from https://images\.example/get$"
    with pytest.raises(UserError, match=message):
        convert(source, Path("data/pets"), Path("downloads"))
    assert "page" not in source.model_dump()
