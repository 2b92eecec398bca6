"""Reader of files that `torch.save` wrote, in its present and its earlier format, which runs nothing they ask for.

Tensors are found by their names first, and read after all is known to be there. An archive's checksums are compared, so
that a flipped byte is seen; the earlier format has none.
"""

import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase, BytesIO
from typing import IO, Any, cast

import torch
from torch import Tensor

from us3l.utils.plain_pickle import PlainBytes, PlainDict, StandIn, load_plain

MOST_TENSORS = 2**29  # bytes; ResNet-101 with its momentum encoder has 0.46 GB
MOST_PICKLE = 2**24  # bytes, which hold names and numbers; 0.6 MB for a ResNet-101
MOST_ENTRIES = 2**22  # bytes of an archive's list of its entries
MAGIC = 0x1950A86A20F9469CFC6C  # the first number in a file of the earlier format
KEYS = ("state_dict", "model")
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


_WRONG = (zipfile.BadZipFile, struct.error, OSError, EOFError, LookupError, TypeError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class TorchFile:
    """The content of a file: tensors by name, and the entries beside them."""

    tensors: dict[str, Tensor]
    entries: dict[Any, Any]


class NoTensors(ValueError):
    """A whole file that holds no tensors by name."""


def read_torch_file(file: BufferedIOBase) -> TorchFile:
    """Read the tensors by name in a file, alone or under the key `state_dict` or `model`.

    Raises ValueError where the file is damaged or names other than tensors and plain values, and NoTensors.
    """
    try:
        if zipfile.is_zipfile(cast(IO[bytes], file)):
            with zipfile.ZipFile(cast(IO[bytes], _Bounded(file))) as archive:
                return _read(_load_archive(archive))
        file.seek(0)
        return _read(_load_earlier_format(file))
    except _WRONG as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read(content: Any) -> TorchFile:
    entries = content if isinstance(content, PlainDict) else PlainDict()
    key = next((key for key in KEYS if key in entries), None)
    named = entries.pop(key) if key else entries
    described = isinstance(named, PlainDict) and all(isinstance(name, str) for name in named)
    if not named or not described or not all(isinstance(each, _Tensor) for each in named.values()):
        raise NoTensors("it must hold tensors by name")
    storages = {id(each.storage): each.storage for each in named.values()}
    if (size := sum(each.nbytes for each in storages.values())) > MOST_TENSORS:
        raise ValueError(f"its tensors have {size} bytes")
    tensors = {name: each.load() for name, each in named.items()}
    return TorchFile(tensors, {} if named is entries else dict(entries))


# --- tensors and their storages -------------------------------------------------------------------------------------


@dataclass
class _Storage:
    """The values that tensors share; `read_into` reads them where they lie in the file."""

    dtype: torch.dtype
    count: int
    read_into: Callable[[memoryview], int]
    values: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def load(self) -> Tensor:
        if not len(self.values) and self.count:
            self.values = torch.empty(self.count, dtype=self.dtype)
            if self.read_into(self.values.view(torch.uint8).numpy().data) != self.nbytes:
                raise ValueError("it ends within a tensor")
        return self.values


class _Tensor(StandIn):
    """Stand-in for `torch._utils._rebuild_tensor_v2`: a part of a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        if not isinstance(storage, _Storage):
            raise ValueError("it holds a tensor without a storage")
        self.storage, self._place = storage, (size, stride, offset)

    def load(self) -> Tensor:
        return self.storage.load().as_strided(*self._place)


class _Parameter(StandIn):
    """Stand-in for `torch._utils._rebuild_parameter`: the tensor in it."""

    def __new__(cls, data: Any, *_: Any) -> Any:
        return data


STAND_INS = {
    ("collections", "OrderedDict"): PlainDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("_codecs", "encode"): PlainBytes,
    ("utils.meters", "ScalarMeter"): StandIn,  # beside the tensors in checkpoints of slimmable_networks
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
}


class _Storages:
    """The storages that a pickle names, by their keys: `find` returns what reads one of a number of bytes."""

    def __init__(self, find: Callable[[str, int], Callable[[memoryview], int]]) -> None:
        self.by_key: dict[str, _Storage] = {}
        self._find = find

    def __call__(self, address: Any) -> _Storage:
        kind, dtype, key, _device, count, *_ = address
        key = key.decode() if isinstance(key, bytes) else key
        is_known = kind in ("storage", b"storage") and isinstance(dtype, torch.dtype) and type(count) is int
        if not is_known or count < 0 or not isinstance(key, str):
            raise ValueError(f"it holds no storage under {key!r}")
        if key not in self.by_key:
            self.by_key[key] = _Storage(dtype, count, self._find(key, count * dtype.itemsize))
        if (self.by_key[key].dtype, self.by_key[key].count) != (dtype, count):
            raise ValueError(f"it holds two storages under {key!r}")
        return self.by_key[key]


# --- the two formats ------------------------------------------------------------------------------------------------


def _load_archive(archive: zipfile.ZipFile) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if not any(name.endswith("/data.pkl") for name in entries):
        raise ValueError("it is an archive around other files: unpack it, and take the one in it")
    _require_as_torch_writes_it(archive)
    [pickled] = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    folder = pickled.removesuffix("data.pkl")
    if entries[pickled].file_size > MOST_PICKLE:
        raise ValueError(f"its {pickled} has {entries[pickled].file_size} bytes")
    if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("it was written on a machine of another byte order")
    if damaged := archive.testzip():
        raise ValueError(f"its {damaged} has another checksum than when it was written")

    def find(key: str, size: int) -> Callable[[memoryview], int]:
        entry = entries[f"{folder}data/{key}"]
        if entry.file_size != size:
            raise ValueError(f"its {entry.filename} has {entry.file_size} bytes instead of {size}")
        return partial(_read_entry, archive, entry)

    return load_plain(archive.read(pickled), STAND_INS, _Storages(find))


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, values: memoryview) -> int:
    with archive.open(entry) as file:
        return cast(BufferedIOBase, file).readinto(values)


def _require_as_torch_writes_it(archive: zipfile.ZipFile) -> None:
    """Raise ValueError where entries are compressed, overlap or have one name: they might be of any size."""
    entries = archive.infolist()
    assert archive.fp is not None  # it is open
    whole = archive.fp.seek(0, 2)
    if any(each.compress_type != zipfile.ZIP_STORED or each.compress_size != each.file_size for each in entries):
        raise ValueError("it is compressed")
    if sum(each.file_size for each in entries) > whole or len({each.filename for each in entries}) < len(entries):
        raise ValueError("its entries overlap")


class _Bounded:
    """A file of which no more than `MOST_ENTRIES` bytes are read at a time, as the list of an archive's entries is."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, MOST_ENTRIES) if size >= 0 else MOST_ENTRIES)


def _load_earlier_format(file: BufferedIOBase) -> Any:
    """Read pickles, of which one lists the keys of storages, and then the storages, each behind its length."""
    places: dict[str, int] = {}
    storages = _Storages(lambda key, size: partial(_read_place, file, places, key))
    start = BytesIO(file.read(MOST_PICKLE))
    if load_plain(start, {}) != MAGIC:
        raise ValueError("it is no file of torch.save")
    _protocol, _system, content, keys = (load_plain(start, STAND_INS, storages) for _ in range(4))
    end = start.tell()
    for key in (each.decode() if isinstance(each, bytes) else each for each in keys):
        storage = storages.by_key[key]
        file.seek(end)
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError(f"its storage {key} has another length")
        places[key], end = end + 8, end + 8 + storage.nbytes
    if file.seek(0, 2) != end:
        raise ValueError("it has another length")
    return content


def _read_place(file: BufferedIOBase, places: Mapping[str, int], key: str, values: memoryview) -> int:
    file.seek(places[key])
    return file.readinto(values)
