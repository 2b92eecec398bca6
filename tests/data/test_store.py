import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_limited_to

from us3l.data.store import FILES, DatasetSource, SplitSource, open_store, write_store
from us3l.utils.errors import UserError


def contents(seed: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> DatasetSource:
    """12 training and 4 test images of 5x6x3 noise."""
    images = np.random.default_rng(seed).integers(0, 256, (16, 5, 6, 3), np.uint8)
    labels = np.arange(16) % 2
    train = SplitSource(labels[:12], images[:12])
    return DatasetSource(classes, (5, 6, 3), train, SplitSource(labels[12:], images[12:]))


def test_what_is_written_is_what_is_opened(tmp_path: Path) -> None:
    write_store(tmp_path / "pets", contents())
    store = open_store(tmp_path / "pets")
    images = np.random.default_rng(0).integers(0, 256, (16, 5, 6, 3), np.uint8)
    np.testing.assert_array_equal(store.train.images, images[:12])
    np.testing.assert_array_equal(store.test.images, images[12:])
    np.testing.assert_array_equal(store.train.labels, np.arange(12) % 2)
    assert store.classes == ("cat", "dog")
    assert store.train.labels.dtype == np.int64
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == sorted(FILES)


def test_meta_json_says_what_is_in_the_arrays(tmp_path: Path) -> None:
    sha256 = write_store(tmp_path, contents())
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["classes"] == ["cat", "dog"]
    assert meta["shape"] == [5, 6, 3]
    assert meta["sizes"] == {"train": 12, "test": 4}
    assert meta["sha256"] == open_store(tmp_path).sha256 == sha256


def test_opened_images_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    write_store(tmp_path, contents())
    images = open_store(tmp_path).train.images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_hash_depends_on_pixels_labels_and_classes_but_not_on_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relabelled = contents()
    relabelled.train.labels[0] = 1
    variants = [contents(), contents(), contents(seed=1), contents(classes=("cat", "fox")), relabelled]
    hashes = []
    for number, variant in enumerate(variants):
        monkeypatch.setattr("us3l.data.store.BLOCK", 5 + number)
        write_store(tmp_path / str(number), variant)
        hashes.append(open_store(tmp_path / str(number)).sha256)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_a_store_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    write_store(tmp_path, contents(seed=0))
    old = open_store(tmp_path).sha256
    write_store(tmp_path, contents(seed=1))
    assert open_store(tmp_path).sha256 != old
    assert len(list(tmp_path.iterdir())) == len(FILES)


def test_an_absent_store_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pets: there is no prepared data set; run `us3l prepare pets`"):
        open_store(tmp_path / "pets")


@pytest.mark.parametrize("name", FILES)
def test_a_store_without_one_of_its_files_is_refused(tmp_path: Path, name: str) -> None:
    write_store(tmp_path, contents())
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} missing .* run `us3l prepare"):
        open_store(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 20, 140])
def test_a_store_with_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    write_store(tmp_path, contents())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(UserError, match=r"is damaged .* run `us3l prepare"):
        open_store(tmp_path)


IMAGES, LABELS, OUTSIDE = "uint8 (12, 5, 6, 3)", "int64 (4,)", "labels outside 0..1"


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("train_images", np.zeros((11, 5, 6, 3), np.uint8), f"uint8 (11, 5, 6, 3), meta.json says {IMAGES}"),
        ("train_images", np.zeros((12, 5, 6, 3), np.float32), f"float32 (12, 5, 6, 3), meta.json says {IMAGES}"),
        ("test_labels", np.zeros(5, np.int64), f"int64 (5,), meta.json says {LABELS}"),
        ("test_labels", np.zeros(4, np.int32), f"int32 (4,), meta.json says {LABELS}"),
        ("test_labels", np.full(4, 2), OUTSIDE),
        ("test_labels", np.array([0, 1, 2, 1]), OUTSIDE),
        ("test_labels", np.array([0, 1, -1, 1]), OUTSIDE),
    ],
)
def test_arrays_that_do_not_fit_meta_json_are_refused_each_for_its_own_reason(
    tmp_path: Path, name: str, array: np.ndarray, reason: str
) -> None:
    write_store(tmp_path, contents())
    np.save(tmp_path / f"{name}.npy", array)
    said = f"{tmp_path}: the prepared data set is damaged ({name}.npy holds {reason}); run `us3l prepare"
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        open_store(tmp_path)


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    write_store(tmp_path, contents())
    np.save(tmp_path / "test_labels.npy", np.array([{}] * 4, object))
    with pytest.raises(UserError, match=r"is damaged \(Array can't be memory-mapped: Python objects in dtype"):
        open_store(tmp_path)


ARRAYS = FILES[:4]
HEADER = 128  # bytes of a .npy file before its data


def flip(path: Path, place: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(content)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_flipped_byte_of_an_array_is_refused(tmp_path: Path, name: str) -> None:
    write_store(tmp_path, contents())
    for place in range(HEADER, (tmp_path / name).stat().st_size):
        flip(tmp_path / name, place, 1)
        with pytest.raises(UserError, match=r"is damaged .* run `us3l prepare"):
            open_store(tmp_path)
        flip(tmp_path / name, place, 1)
    open_store(tmp_path)


@pytest.mark.filterwarnings("ignore:Data type alias")
@pytest.mark.parametrize("name", ARRAYS)
def test_a_flipped_bit_before_the_data_of_an_array_is_refused_or_means_the_same(tmp_path: Path, name: str) -> None:
    write_store(tmp_path, contents())
    whole = open_store(tmp_path)
    for place, bit in product(range(HEADER), range(8)):
        flip(tmp_path / name, place, 1 << bit)
        try:
            opened = open_store(tmp_path)
        except UserError as error:
            assert "is damaged" in str(error)
        else:
            np.testing.assert_array_equal(opened.train.images, whole.train.images)
            np.testing.assert_array_equal(opened.test.labels, whole.test.labels)
        flip(tmp_path / name, place, 1 << bit)


def test_a_flipped_bit_of_meta_json_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path, contents())
    for place, bit in product(range((tmp_path / "meta.json").stat().st_size), range(8)):
        flip(tmp_path / "meta.json", place, 1 << bit)
        with pytest.raises(UserError, match="is damaged"):
            open_store(tmp_path)
        flip(tmp_path / "meta.json", place, 1 << bit)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_store_of_the_same_shape_is_refused(tmp_path: Path, name: str) -> None:
    other = contents(seed=1)
    for labels in (other.train.labels, other.test.labels):
        labels[:] = 1 - labels
    write_store(tmp_path / "one", contents())
    write_store(tmp_path / "other", other)
    (tmp_path / "other" / name).replace(tmp_path / "one" / name)
    with pytest.raises(UserError, match=r"is damaged \(the arrays are not those that meta\.json tells of\)"):
        open_store(tmp_path / "one")


@pytest.mark.parametrize("meta", ["[]", "{}", '{"classes": 3, "sizes": {}, "shape": 1}', "not json"])
def test_a_meaningless_meta_json_is_refused(tmp_path: Path, meta: str) -> None:
    write_store(tmp_path, contents())
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(UserError, match="is damaged"):
        open_store(tmp_path)


class Failing:
    dtype = np.dtype("u1")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, rows: slice) -> np.ndarray:
        if rows.start == 6:
            raise UserError("the seventh image is broken")
        return np.zeros((6, 5, 6, 3), np.uint8)


@pytest.fixture
def six_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("us3l.data.store.BLOCK", 6)


@pytest.mark.usefixtures("six_at_a_time")
def test_a_failure_between_images_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = DatasetSource(("a", "b"), (5, 6, 3), SplitSource(np.zeros(12), Failing()), contents().test)
    with pytest.raises(UserError, match="seventh"):
        write_store(tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("six_at_a_time")
def test_a_failure_keeps_the_store_that_was_there(tmp_path: Path) -> None:
    write_store(tmp_path, contents())
    old = open_store(tmp_path).sha256
    broken = DatasetSource(("a", "b"), (5, 6, 3), SplitSource(np.zeros(12), Failing()), contents().test)
    with pytest.raises(UserError, match="seventh"):
        write_store(tmp_path, broken)
    assert open_store(tmp_path).sha256 == old
    assert len(list(tmp_path.iterdir())) == len(FILES)


@pytest.mark.parametrize("renamed", range(len(FILES)))
def test_a_store_that_was_replaced_in_part_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    write_store(tmp_path, contents(seed=0))
    replace, targets = Path.replace, []

    def replace_some(path: Path, target: Path) -> None:
        if len(targets) == renamed:
            raise KeyboardInterrupt
        targets.append(replace(path, target))

    monkeypatch.setattr(Path, "replace", replace_some)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path, contents(seed=1))
    with pytest.raises(UserError, match=r"meta\.json missing"):
        open_store(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_reported_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with files_limited_to(800), pytest.raises(UserError, match="the disk is full"):
        write_store(tmp_path, contents())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("images", [np.zeros((11, 5, 6, 3), np.uint8), np.zeros((12, 5, 6, 1), np.uint8), np.zeros(12)])
def test_blocks_that_do_not_make_up_the_split_are_refused(tmp_path: Path, images: np.ndarray) -> None:
    wrong = DatasetSource(("a", "b"), (5, 6, 3), SplitSource(np.zeros(12), images), contents().test)
    with pytest.raises(ValueError, match="in an array of"):
        write_store(tmp_path, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "meta",
    [
        *("[]", '"x"', "3", "null", "[" * 100_000, "{}", '{"a":' * 100 + "1" + "}" * 100, "1" * 5000),
        '{"sizes": [], "shape": 3}',
        '{"sizes": {"train": 1e999}, "shape": [5, 6, 3]}',
        '{"sizes": {"train": 12, "test": 4}, "shape": [5, 6, 3], "classes": 3, "sha256": 0}',
    ],
)
@pytest.mark.usefixtures("must_end")
def test_a_meta_json_of_other_content_is_refused(tmp_path: Path, meta: str) -> None:
    write_store(tmp_path, contents())
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(UserError, match=rf"^{tmp_path}: the prepared data set is damaged \(.*\); run `us3l prepare"):
        open_store(tmp_path)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(100), b"\x80\x04]", b"", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_arrays_of_another_kind_of_file_are_refused(tmp_path: Path, content: bytes) -> None:
    write_store(tmp_path, contents())
    (tmp_path / "train_images.npy").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path}: the prepared data set is damaged"):
        open_store(tmp_path)
