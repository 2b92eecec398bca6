import gzip
import hashlib
import io
import os
import pickle
import resource
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources import convert

from us3l.data.sources import cifar
from us3l.data.store import Store, open_store
from us3l.params.dataset import Cifar, CifarSubset
from us3l.utils.errors import UserError

Members = dict[str, bytes]


def images(count: int) -> np.ndarray:
    """[count, 3072] uint8, as the archives hold them: channel by channel."""
    return np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)


def python3(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def protocol4(value: Any) -> bytes:
    return pickle.dumps(value, protocol=4)


def python2(value: Any) -> bytes:
    """Pickle as Python 2 and numpy 1 wrote the official archives: str as bytes, old module names, protocol 2."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(data)) + data
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
    dtype = b"cnumpy\ndtype\n(" + _python2("u1") + b"K\x00K\x01tR(K\x03" + _python2("|") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + _python2("b") + b"tR"
    shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
    return array + b"(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"


def members100(dump: Callable[[Any], bytes] = python3) -> Members:
    return {
        "cifar-100-python/meta": dump({"fine_label_names": ["apple", "bear", "cup"], "coarse_label_names": ["x"]}),
        "cifar-100-python/train": dump({"filenames": ["a"], "data": images(6), "fine_labels": [0, 1, 2, 0, 1, 2]}),
        "cifar-100-python/test": dump({"data": images(2), "fine_labels": [2, 1]}),
    }


def members10(dump: Callable[[Any], bytes]) -> Members:
    batches = {f"data_batch_{number}": dump({"data": images(number), "labels": [1] * number}) for number in range(1, 6)}
    meta = {"batches.meta": dump({"label_names": ["plane", "car"], "num_vis": 3072})}
    test = {"test_batch": dump({"data": images(2), "labels": [0, 1]})}
    return {f"cifar-10-batches-py/{name}": blob for name, blob in (batches | meta | test).items()}


def write_archive(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, blob in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return path


def prepared(archive: Path, kind: str = "cifar100", subset: CifarSubset | None = None) -> Store:
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    folder = archive.parent / "store"
    convert(Cifar(kind=kind, url=archive.as_uri(), md5=md5, subset=subset), folder, archive.parent / "downloads")
    return open_store(folder)


def assert_refused(archive: Path, reason: str, subset: CifarSubset | None = None) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        prepared(archive, subset=subset)
    assert str(caught.value).startswith(str(archive))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not (archive.parent / "store").exists()


def pixels(count: int) -> np.ndarray:
    return images(count).reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("dump", [python2, python3, protocol4])
def test_cifar100_becomes_a_store(tmp_path: Path, dump: Callable[[Any], bytes]) -> None:
    store = prepared(write_archive(tmp_path / "c.tar.gz", members100(dump)))
    np.testing.assert_array_equal(store.train.images, pixels(6))
    np.testing.assert_array_equal(store.test.images, pixels(2))
    assert store.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert store.test.labels.tolist() == [2, 1]
    assert store.classes == ("apple", "bear", "cup")


@pytest.mark.parametrize("dump", [python2, python3])
def test_the_batches_of_cifar10_become_one_split(tmp_path: Path, dump: Callable[[Any], bytes]) -> None:
    store = prepared(write_archive(tmp_path / "c.tar.gz", members10(dump)), "cifar10")
    np.testing.assert_array_equal(store.train.images, np.concatenate([pixels(number) for number in range(1, 6)]))
    assert store.train.labels.tolist() == [1] * 15
    assert store.classes == ("plane", "car")


def test_keys_may_be_bytes(tmp_path: Path) -> None:
    members = members100()
    members["cifar-100-python/test"] = python3({b"data": images(2), b"fine_labels": [2, 1]})
    assert prepared(write_archive(tmp_path / "c.tar.gz", members)).test.labels.tolist() == [2, 1]


def test_an_array_in_fortran_order_is_read_as_what_it_is(tmp_path: Path) -> None:
    members = members100()
    members["cifar-100-python/test"] = python3({"data": np.asfortranarray(images(2)), "fine_labels": [2, 1]})
    np.testing.assert_array_equal(prepared(write_archive(tmp_path / "c.tar.gz", members)).test.images, pixels(2))


def test_the_same_archive_gives_the_same_hash(tmp_path: Path) -> None:
    first = prepared(write_archive(tmp_path / "a.tar.gz", members100(python2)))
    assert prepared(write_archive(tmp_path / "b.tar.gz", members100(python3))).sha256 == first.sha256


NAMES = ("cup", "apple", "dog", "bear")


def members_in_order(seed: int) -> Members:
    """5 training and 3 test images of each class, which a seed puts in an order, as it does the names.

    One image of each split is both a cup and an apple.
    """
    random = np.random.default_rng(seed)
    names = random.permutation(len(NAMES))
    members = {"cifar-100-python/meta": python3({"fine_label_names": [NAMES[name] for name in names]})}
    for split, count in (("train", 20), ("test", 12)):
        data, order = images(count), random.permutation(count)
        data[1] = data[0]
        labels = [names.tolist().index(index % len(NAMES)) for index in order]
        members[f"cifar-100-python/{split}"] = python3({"data": data[order], "fine_labels": labels})
    return members


SUBSET = CifarSubset(classes=3, train=4, test=2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_subset_does_not_depend_on_the_order_of_the_archive(tmp_path: Path, seed: int) -> None:
    archives = [write_archive(tmp_path / f"{number}.tar.gz", members_in_order(number)) for number in (0, seed)]
    (whole, other_whole), (part, other_part) = (
        [prepared(archive, subset=subset).sha256 for archive in archives] for subset in (None, SUBSET)
    )
    assert whole != other_whole
    assert part == other_part


def test_a_subset_is_the_first_classes_by_name_and_the_smallest_hashes(tmp_path: Path) -> None:
    store = prepared(write_archive(tmp_path / "c.tar.gz", members_in_order(0)), subset=SUBSET)
    assert store.classes == ("apple", "bear", "cup")
    for split, count, kept in ((store.train, 20, 4), (store.test, 12, 2)):
        data = pixels(count)
        data[1] = data[0]
        digests = [hashlib.sha256(image.tobytes()).digest() for image in data]
        of_each = {name: sorted(digests[NAMES.index(name) :: len(NAMES)]) for name in store.classes}
        expected = sorted((digest, name) for name, smallest in of_each.items() for digest in smallest[:kept])
        found = [
            (hashlib.sha256(image).digest(), store.classes[label])
            for image, label in zip(split.images, split.labels, strict=True)
        ]
        assert found == expected


@pytest.mark.parametrize(
    ("subset", "reason"),
    [
        ({"classes": 5, "train": 1, "test": 1}, "subset.classes is 5, but there are only 4 classes"),
        ({"classes": 2, "train": 6, "test": 1}, "subset.train is 6, but there is a class of only 5 images"),
        ({"classes": 2, "train": 1, "test": 4}, "subset.test is 4, but there is a class of only 3 images"),
    ],
)
def test_a_subset_of_more_than_there_is_is_refused(tmp_path: Path, subset: dict[str, int], reason: str) -> None:
    assert_refused(write_archive(tmp_path / "c.tar.gz", members_in_order(0)), reason, CifarSubset(**subset))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path: Path, share: float) -> None:
    archive = write_archive(tmp_path / "c.tar.gz", members100())
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    assert_refused(archive, "not an archive of cifar100")


def test_corrupt_archives_are_refused_or_read_as_they_were(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "c.tar.gz", members100())
    whole = archive.read_bytes()
    for position in range(0, len(whole), len(whole) // 40):
        archive.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            prepared(archive)
        except UserError as error:
            assert str(archive) in str(error)


TWO_GZIPS = [gzip.compress(content, mtime=0) for content in (b"", b"no tar" * 1000)]


@pytest.mark.parametrize("content", [b"", b"no archive", *TWO_GZIPS])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "c.tar.gz"
    archive.write_bytes(content)
    assert_refused(archive, "not an archive of cifar100")


@pytest.mark.parametrize("name", members100())
def test_a_missing_member_is_named(tmp_path: Path, name: str) -> None:
    members = members100()
    del members[name]
    assert_refused(write_archive(tmp_path / "c.tar.gz", members), f"lacks {name}")


def test_the_archive_of_the_other_data_set_is_refused(tmp_path: Path) -> None:
    assert_refused(write_archive(tmp_path / "c.tar.gz", members10(python3)), "lacks cifar-100-python/meta")


DATA, LABELS = images(2), [2, 1]
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds no dict"),
        ({"fine_labels": LABELS}, "no uint8 array"),
        ({"data": DATA}, "no list of 2 numbers"),
        ({"data": DATA[:, :3071], "fine_labels": LABELS}, "no uint8 array"),
        ({"data": DATA[:0], "fine_labels": []}, "no uint8 array"),
        ({"data": DATA.ravel(), "fine_labels": LABELS}, "no uint8 array"),
        ({"data": DATA.tolist(), "fine_labels": LABELS}, "no uint8 array"),
        ({"data": DATA.astype(np.int64), "fine_labels": LABELS}, "another type than uint8"),
        ({"data": DATA, "fine_labels": [1]}, "no list of 2 numbers"),
        ({"data": DATA, "fine_labels": [1, 3]}, r"labels outside 0\.\.2"),
        ({"data": DATA, "fine_labels": [1, -1]}, r"labels outside 0\.\.2"),
        ({"data": DATA, "fine_labels": [1, 1.0]}, r"labels outside 0\.\.2"),
        ({"data": DATA, "fine_labels": [1, [1]]}, r"labels outside 0\.\.2"),
        ({"data": DATA, "fine_labels": [1, 10**400]}, r"labels outside 0\.\.2"),
    ],
)
def test_a_split_with_wrong_content_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    members = members100() | {"cifar-100-python/test": protocol4(content)}
    assert_refused(write_archive(tmp_path / "c.tar.gz", members), f"cifar-100-python/test .*{reason}")


@pytest.mark.parametrize(
    "value",
    [
        ARRAY,
        ARRAY + b"(K\x01K\x05cnumpy\ndtype\n(U\x02u1tR\x89U\x01xtb",
        ARRAY + b"(K\x01(\x8a\x0a\0\0\0\0\0\0\0\0\0\x01tcnumpy\ndtype\n(U\x02u1tR\x89U\x01xtb",
        ARRAY + b"(K\x01(K\x01M\0\x0ctcnumpy\ndtype\n(U\x02u1tR\x89K\x07tb",
        ARRAY + b"(K\x01(K\x01M\0\x0ctcnumpy\ndtype\n(U\x02u1tR\x89c_codecs\nencode\n(K\x07tRtb",
        b"c_codecs\nencode\n)\x81",
        b"cnumpy\ndtype\n",
    ],
    ids=["no-state", "no-shape", "huge-shape", "no-bytes", "no-text", "bytes", "type"],
)
def test_an_array_that_its_pickle_describes_wrongly_is_refused(tmp_path: Path, value: bytes) -> None:
    content = b"\x80\x02}(U\x04data" + value + b"U\x0bfine_labels](K\x02eu."
    members = members100() | {"cifar-100-python/test": content}
    assert_refused(write_archive(tmp_path / "c.tar.gz", members), "not an archive of cifar100")


@pytest.mark.parametrize("names", [None, [], "apple", [1, 2, 3], {"a": 1}])
def test_class_names_must_be_a_list_of_strings(tmp_path: Path, names: Any) -> None:
    members = members100() | {"cifar-100-python/meta": python3({"fine_label_names": names})}
    assert_refused(write_archive(tmp_path / "c.tar.gz", members), "no list of names in fine_label_names")


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    "blob",
    [
        python3(Call(exec, "raise SystemExit")),
        python3(Call(getattr, "", "join")),
        python3(Call(np.frombuffer, b"x")),
        python3(Call(np.zeros, 1 << 40)),
        python3(np.array([Call(os.getcwd)], object)),
        python3(np.float64(1)),
        python3({"data": np.array([("a", 1)], [("name", "U3"), ("size", "i4")])}),
        b"\x80\x04\x8c\x05numpy\x8c\x0andarray.__class__\x93.",
        b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.",
        ARRAY + b"(K\x01(K\x02tN\x89U\x02abtb.",
        ARRAY + b"K\x01b.",
        b"cnumpy\nndarray\n}U\x0c__setstate__K\x01s\x86b.",
        b"cnumpy\nndarray\nK\x01b.",
        b"Psomething\n.",
        b"\x80\x02\x82\x01.",
        b"",
        b".",
        b"\x80\x02}q\x01(U\x04data",
        b"\xff\xff",
        b"(" * 100_000,
    ],
    ids=range(20),
)
def test_a_pickle_that_asks_for_anything_but_plain_values_is_refused(tmp_path: Path, blob: bytes) -> None:
    members = members100() | {"cifar-100-python/test": blob}
    assert_refused(write_archive(tmp_path / "c.tar.gz", members), "cifar-100-python/test is no plain pickle: .+;")


@pytest.mark.parametrize("name", members100())
def test_a_command_in_a_pickle_does_not_run(tmp_path: Path, name: str) -> None:
    blob = python3({"data": Call(os.system, f"touch {tmp_path}/ran")})
    assert_refused(write_archive(tmp_path / "c.tar.gz", members100() | {name: blob}), "asks for posix.system")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "blob",
    [
        b"\x80\x02N" + b"r\xff\xff\xff\x07.",  # an entry far up in the memo
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # bytes
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"x.",  # a bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame
        b"T\xff\xff\xff\x7fx.",  # a string
        b"\x80\x02"
        + ARRAY
        + b"(K\x01(\x8a\x05\0\0\0\0\x10M\0\x0ct"
        + b"cnumpy\ndtype\n(U\x02u1tR\x89U\x01xtb.",  # an array
    ],
    ids=["memo", "bytes", "bytearray", "frame", "string", "array"],
)
def test_a_pickle_that_claims_to_be_huge_takes_no_memory(tmp_path: Path, blob: bytes) -> None:
    content = b"\x80\x02}(U\x04data" + blob.removesuffix(b".") + b"U\x0bfine_labels](K\x02K\x01eu."
    archive = write_archive(tmp_path / "c.tar.gz", members100() | {"cifar-100-python/test": content})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(archive, "not an archive of cifar100")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_member_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "c.tar.gz"
    info = tarfile.TarInfo("cifar-100-python/train")
    info.size = 1 << 40
    archive.write_bytes(gzip.compress(info.tobuf() + b"x" * 5000))
    assert_refused(archive, f"cifar-100-python/train claims {1 << 40} bytes")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "_MOST_BYTES", 100_000)
    padding = {f"padding{number}": b"\0" * 50_000 for number in range(3)}
    assert_refused(write_archive(tmp_path / "c.tar.gz", padding | members100()), "unpacks to more than 100000 bytes")


def test_members_that_are_no_plain_files_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "c.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert_refused(archive, "cifar-100-python/train is not a plain file")


def test_members_with_paths_that_lead_elsewhere_are_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    prepared(write_archive(folder / "c.tar.gz", {"../escaped": b"x", f"{tmp_path}/escaped": b"x"} | members100()))
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.usefixtures("must_end")
@pytest.mark.parametrize("operation", [b"]", b"(", b"}", b"K\x01"])
def test_an_archive_that_swells_to_a_pickle_of_many_values_is_refused(tmp_path: Path, operation: bytes) -> None:
    members = members100() | {"cifar-100-python/test": b"\x80\x02" + operation * 600_000 + b"."}
    assert_refused(write_archive(tmp_path / "c.tar.gz", members), "it has more than 500000 operations")


def test_a_pickle_of_few_bytes_that_hashes_for_ever_is_refused(tmp_path: Path) -> None:
    pairs = b"\x80\x02K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"}h\x00K\x01s."
    archive = write_archive(tmp_path / "c.tar.gz", members100() | {"cifar-100-python/test": pairs})
    assert_refused(archive, "it holds a dict with a key that is a tuple")


def test_more_members_than_the_archive_has_are_refused(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "c.tar.gz", {f"x{number}": b"" for number in range(101)} | members100())
    assert_refused(archive, "it has more than 100 members")


@pytest.mark.usefixtures("must_end")
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_names_and_attributes_without_end_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive, info = tmp_path / "c.tar.gz", tarfile.TarInfo("long")
    info.type, info.size = kind, 2**20
    archive.write_bytes(gzip.compress(info.tobuf() + b"x" * 2**20))
    assert_refused(archive, f"its long claims {2**20} bytes")
    info.size = 100
    archive.write_bytes(gzip.compress((info.tobuf() + b"x".ljust(512, b"\0")) * 2000))
    assert_refused(archive, "not an archive of cifar100")


def test_only_the_first_gzip_member_is_read(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "c.tar.gz", members100())
    whole = archive.read_bytes()
    archive.write_bytes(gzip.compress(b"") * 1000 + whole)
    assert_refused(archive, "not an archive of cifar100")
    archive.write_bytes(whole + gzip.compress(b"more") * 1000)
    assert prepared(archive).classes == ("apple", "bear", "cup")


@pytest.mark.skipif("US3L_CIFAR100_ARCHIVE" not in os.environ, reason="US3L_CIFAR100_ARCHIVE names no archive")
def test_the_full_cifar100_archive_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "c.tar.gz").symlink_to(os.environ["US3L_CIFAR100_ARCHIVE"])
    store = prepared(tmp_path / "c.tar.gz")
    assert store.train.images.shape == (50_000, 32, 32, 3)
    assert store.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(store.train.labels).tolist() == [500] * 100
    assert np.bincount(store.test.labels).tolist() == [100] * 100
    assert store.classes[0] == "apple"
    means = np.mean(store.train.images, axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.5071, 0.4865, 0.4409], atol=1e-4)
