import hashlib
from pathlib import Path

import numpy as np
import pytest
from odd_files import odd_file
from PIL import Image
from project import params
from pydantic import ValidationError
from sources import convert

from us3l.data.store import Store, open_store
from us3l.params.dataset import Folder
from us3l.params.params import Params
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.stages.prepare import prepare
from us3l.utils.errors import UserError
from us3l.utils.records import read_record


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 6 training images and 1 test image; an image's first byte tells it from the others."""
    for split, count in (("train", 6), ("val", 1)):
        for label, name in enumerate(("n01", "n02")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((4, 4, 3), 10 * label + number, np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{name}_{number}.png")
    return tmp_path


def prepared(images: Path, names: str) -> Store:
    (images / "list.txt").write_text(names)
    source = Folder(
        kind="folder",
        train=str(images / "train"),
        test=str(images / "val"),
        subset=str(images / "list.txt"),
        image_size=4,
    )
    convert(source, images / "store", images / "downloads")
    return open_store(images / "store")


def test_only_the_images_of_the_list_are_trained_on_in_the_folder_order(images: Path) -> None:
    store = prepared(images, "n02_1.png\nn02/n02_0.png\n\nn01_4.png\n")
    assert store.train.images[:, 0, 0, 0].tolist() == [4, 10, 11]
    assert store.train.labels.tolist() == [0, 1, 1]
    assert store.test.images[:, 0, 0, 0].tolist() == [0, 10]


def test_a_class_that_the_list_leaves_out_keeps_its_number(images: Path) -> None:
    store = prepared(images, "n02_3.png\n")
    assert store.classes == ("n01", "n02")
    assert store.train.labels.tolist() == [1]


def test_an_edited_list_makes_other_data_and_a_reordered_one_the_same(images: Path) -> None:
    first = prepared(images, "n01_0.png\nn01_1.png\n").sha256
    assert prepared(images, "n01_1.png\nn01_0.png\n").sha256 == first
    assert prepared(images, "n01_0.png\nn01_2.png\n").sha256 != first


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("n01_0.png\nn01_9.png\nn03/n03_0.png\n", r"line 2: no image in .*/train is called n01_9\.png \(2 of 3 names"),
        ("n01_0.png\nn01_1.png\nn01/n01_0.png\n", r"line 3: n01/n01_0\.png is on line 1 already"),
        ("\n \n", "the list names no images"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_in_one_sentence(images: Path, names: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^{images / 'list.txt'}: {reason}") as caught:
        prepared(images, names)
    assert "\n" not in str(caught.value)
    assert not (images / "store").exists()


def test_a_file_name_that_two_classes_have_needs_its_class(images: Path) -> None:
    (images / "train/n02/n02_0.png").rename(images / "train/n02/n01_0.png")
    with pytest.raises(UserError, match=r"line 1: 2 images are called n01_0\.png; name it as class/name"):
        prepared(images, "n01_0.png\n")
    assert prepared(images, "n02/n01_0.png\n").train.labels.tolist() == [1]


def test_the_record_tells_of_the_list(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    (images / "list.txt").write_text("n01_0.png\n")
    made = params()
    made["datasets"]["digits"] |= {
        "source": {"kind": "folder", "train": "train", "test": "val", "subset": "list.txt", "image_size": 4},
        "views": {"normalize": {"mean": [0.5] * 3, "std": [0.2] * 3}, "pretrain": [{"flip": 0.5}, {"flip": 0.5}]},
    }
    job = PrepareJob(Plan(Params.model_validate(made)).dataset("digits"))
    prepare(job, Path("downloads"))
    record = read_record(job.record)
    assert record["subset"] == hashlib.sha256(b"n01_0.png\n").hexdigest()
    assert record["data"] == open_store(job.data.folder).sha256


def test_an_absent_list_is_named(images: Path) -> None:
    source = Folder(kind="folder", train=str(images / "train"), test=str(images / "val"), subset="gone", image_size=4)
    with pytest.raises(UserError, match="/gone: not a readable list of images"):
        convert(source, images / "store", images / "downloads")


def test_a_list_needs_a_test_folder() -> None:
    with pytest.raises(ValidationError, match="needs a test folder"):
        Folder(kind="folder", train="train", test_fraction=0.2, subset="list", image_size=4)


@pytest.mark.usefixtures("must_end")
@pytest.mark.parametrize(
    ("kind", "said"),
    [("pipe", "a pipe or a device, and no file"), ("huge", "bytes are more")],
)
def test_a_list_that_is_no_file_is_not_waited_for(images: Path, kind: str, said: str) -> None:
    subset = str(odd_file(images, kind))
    source = Folder(kind="folder", train=str(images / "train"), test=str(images / "val"), subset=subset, image_size=4)
    with pytest.raises(UserError, match=f"not a readable list of images .*{said}"):
        convert(source, images / "store", images / "downloads")


@pytest.mark.parametrize(
    ("content", "said"),
    [("n01_0.png\n".encode("utf-16"), "can't decode byte"), (b"\n" * 2_000_001, "it has more than 2000000 lines")],
)
def test_a_list_of_another_encoding_or_without_end_is_refused(images: Path, content: bytes, said: str) -> None:
    (images / "list").write_bytes(content)
    subset = str(images / "list")
    source = Folder(kind="folder", train=str(images / "train"), test=str(images / "val"), subset=subset, image_size=4)
    with pytest.raises(UserError, match=f"^{subset}: not a readable list of images .*{said}"):
        convert(source, images / "store", images / "downloads")
