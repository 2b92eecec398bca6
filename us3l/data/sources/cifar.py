"""Reader of the official python archives of CIFAR-10 and CIFAR-100, which does not trust them."""

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from us3l.data.sources.cifar_subset import take_subset
from us3l.data.sources.download import MOST_BYTES
from us3l.data.sources.plain_arrays import ARRAYS, PlainArray
from us3l.data.store import DatasetSource, SplitSource
from us3l.params.dataset import CifarSubset
from us3l.utils.errors import UserError
from us3l.utils.plain_pickle import PlainBytes, load_plain
from us3l.utils.reading import open_plain

_MOST_BYTES = 1 << 28  # the official archives unpack to 0.19 GB
_MOST_HEADER = 1 << 16  # bytes of a long name or of a member's attributes
_BLOCK = 1 << 16  # packed bytes that are read at a time
_MOST_MEMBERS = 100  # the official archives have 9
_WRONG_BYTES = (OSError, EOFError, zlib.error, tarfile.TarError, RecursionError)  # the last: of many long names
_WRONG_VALUES = (ValueError, TypeError, AttributeError)  # raised by numpy and the stand-ins for odd pickles


@dataclass(frozen=True)
class _Layout:
    """Layout of an archive: its members, and the keys of their dicts."""

    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    classes: str


_LAYOUTS = {
    "cifar10": _Layout(
        train=tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        test="cifar-10-batches-py/test_batch",
        meta="cifar-10-batches-py/batches.meta",
        labels="labels",
        classes="label_names",
    ),
    "cifar100": _Layout(
        train=("cifar-100-python/train",),
        test="cifar-100-python/test",
        meta="cifar-100-python/meta",
        labels="fine_labels",
        classes="fine_label_names",
    ),
}


def read_cifar(archive: Path, kind: str, subset: CifarSubset | None) -> DatasetSource:
    """Read the images of a `kind` "cifar10" or "cifar100": all in the archive's order, or a subset.

    Raises UserError where the archive is not of this kind, or has less than the subset asks for.
    """
    try:
        contents = _read_contents(archive, _LAYOUTS[kind])
    except (*_WRONG_BYTES, *_WRONG_VALUES) as error:
        raise UserError(
            f"{archive}: not an archive of {kind} ({error}); give url and md5 of the official one in params.yaml"
        ) from None
    try:
        return take_subset(contents, subset) if subset else contents
    except ValueError as error:
        raise UserError(f"{archive}: {error}; ask for less in params.yaml") from None


def _read_contents(archive: Path, layout: _Layout) -> DatasetSource:
    members = _read_members(archive, {*layout.train, layout.test, layout.meta})
    classes = _classes(members[layout.meta], layout)
    train = [_split(name, members[name], layout, len(classes)) for name in layout.train]
    labels, images = map(np.concatenate, zip(*train, strict=True))
    return DatasetSource(
        classes=classes,
        shape=(32, 32, 3),
        train=SplitSource(labels, images),
        test=SplitSource(*_split(layout.test, members[layout.test], layout, len(classes))),
    )


class _Unpacked:
    """The content of a gzip file, and an error after `_MOST_BYTES` of it: a small archive may unpack to any size.

    Only the file's first member is read, which Python's gzip module cannot be told: empty ones might follow for ever.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._gzip = file, zlib.decompressobj(wbits=31)  # of a gzip file, whose checksum is compared
        self._left = _MOST_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {_MOST_BYTES} bytes")
        content = bytearray()
        while len(content) < size and not self._gzip.eof:
            packed = self._gzip.unconsumed_tail or self._file.read(_BLOCK)
            if not packed:
                raise EOFError("it ends too early")
            content += self._gzip.decompress(packed, size - len(content))
        return bytes(content)


class _Member(tarfile.TarInfo):
    """A member of an archive, before which stand no attributes of more than `_MOST_HEADER` bytes."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > _MOST_HEADER:
            raise ValueError(f"its {self.name} claims {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _read_members(archive: Path, names: set[str]) -> dict[str, dict[str, Any]]:
    """Read the dicts in the named members. Nothing is extracted; the stream is read once, front to back."""
    members = {}
    with (
        open_plain(archive, MOST_BYTES) as packed,
        # tarfile calls nothing but read of a stream.
        tarfile.open(fileobj=cast(IO[bytes], _Unpacked(packed)), mode="r|", tarinfo=_Member) as tar,
    ):
        for number, member in enumerate(tar):
            if number == _MOST_MEMBERS:
                raise ValueError(f"it has more than {_MOST_MEMBERS} members")
            if member.size > _MOST_BYTES:
                raise ValueError(f"its {member.name} claims {member.size} bytes")
            if member.name in names:
                members[member.name] = _read_member(tar, member)
    if missing := names - members.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    return members


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None:
        raise ValueError(f"its {member.name} is not a plain file")
    try:
        content = load_plain(file.read(), ARRAYS)
    except ValueError as error:
        raise ValueError(f"its {member.name} is no plain pickle: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"its {member.name} holds no dict")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> Any:
    value = value.to_bytes() if isinstance(value, PlainBytes) else value
    return value.decode() if isinstance(value, bytes) else value


def _classes(content: dict[str, Any], layout: _Layout) -> tuple[str, ...]:
    names = content.get(layout.classes)
    classes = tuple(map(_text, names)) if isinstance(names, list) else ()
    if not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"its {layout.meta} has no list of names in {layout.classes}")
    return classes


def _split(name: str, content: dict[str, Any], layout: _Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [N] int64 and images [N, 32, 32, 3] uint8 of a member. Raises ValueError for any other content."""
    data, labels = content.get("data"), content.get(layout.labels)
    pixels = data.to_numpy() if isinstance(data, PlainArray) else np.empty(0)
    if pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32 or not len(pixels):
        raise ValueError(f"its {name} has no uint8 array of [N, 3072] in data")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ValueError(f"its {name} has no list of {len(pixels)} numbers in {layout.labels}")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise ValueError(f"its {name} has labels outside 0..{classes - 1} in {layout.labels}")
    return np.array(labels, np.int64), pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
