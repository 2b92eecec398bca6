"""A prepared data set on disk, memory-mapped: images as uint8 arrays or a table of files, their labels and classes."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Protocol

import numpy as np

from us3l.data.files import Files, table_dtype
from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError
from us3l.utils.reading import read_json

BLOCK = 256  # images read at a time
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, SyntaxError, TokenError)
FILES = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy", "meta.json")


@dataclass(frozen=True)
class Split:
    """A split: images [N, H, W, C] uint8, or N RGB files; labels [N] int64, each an index into the store's classes."""

    images: np.ndarray | Files
    labels: np.ndarray


@dataclass(frozen=True)
class Store:
    """A data set in read-only, memory-mapped arrays; `sha256` is the hash of its images, labels and classes."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    sha256: str

    @property
    def channels(self) -> int:
        return 3 if isinstance(self.train.images, Files) else self.train.images.shape[-1]


class SourceImages(Protocol):
    """Images that are read when they are asked for, since all of them may exceed the memory; an array is one, too.

    A slice is [n, H, W, C] uint8, or of a table of image files. Raises UserError where one is unreadable.
    """

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class SplitSource:
    """A split to write: labels [N] and images; `folder` is where they stay if the images are a table of files."""

    labels: np.ndarray
    images: SourceImages
    folder: Path | None = None


@dataclass(frozen=True)
class DatasetSource:
    """The contents of a store to write; shape: (H, W, C) of every image, None where images stay in their files."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int] | None
    train: SplitSource
    test: SplitSource


def write_store(folder: Path, contents: DatasetSource) -> str:
    """Write the five files of a store and return its SHA-256; they appear once all are complete, meta.json last.

    Raises UserError where they cannot be written, and whatever the images raise; nothing new then stays in `folder`.
    """
    splits = {"train": contents.train, "test": contents.test}
    meta: dict[str, Any] = {
        "classes": contents.classes,
        "shape": contents.shape,
        "sizes": {name: len(split.labels) for name, split in splits.items()},
    }
    digest = _digest(meta)
    with ExitStack() as stack:
        # The stack unwinds backwards: files in the reverse of FILES, renamed in the order of FILES.
        temporary = {name: stack.enter_context(atomic_write(folder / name)) for name in reversed(FILES)}
        for name, split in splits.items():
            with temporary[f"{name}_images.npy"].open("wb") as file:
                dtype = np.dtype("u1") if contents.shape else split.images.dtype
                shape = (len(split.labels), *(contents.shape or ()))
                _write_array(file, _blocks(split.images), dtype, shape, digest)
            with temporary[f"{name}_labels.npy"].open("wb") as file:
                _write_array(file, [split.labels.astype("<i8")], np.dtype("<i8"), split.labels.shape, digest)
        about = {**meta, "sha256": digest.hexdigest(), **_image_folders(splits, folder)}
        temporary["meta.json"].write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        # While files are renamed, old and new arrays may be mixed: without a meta.json they are no store.
        (folder / "meta.json").unlink(missing_ok=True)
    return digest.hexdigest()


def _image_folders(splits: dict[str, SplitSource], store: Path) -> dict[str, dict[str, str]]:
    """Return the entry of meta.json that names the folders of image files, which the SHA-256 leaves out."""
    folders = {name: split.folder for name, split in splits.items() if split.folder}
    return {"folders": {name: _path_from(store, folder) for name, folder in folders.items()}} if folders else {}


def _path_from(store: Path, folder: Path) -> str:
    """Return a relative path for a folder of the project, so that the project can be moved, else an absolute one."""
    return os.path.relpath(folder, store.resolve()) if folder.is_relative_to(Path.cwd()) else str(folder)


def _blocks(images: SourceImages) -> Iterator[np.ndarray]:
    return (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))


def _write_array(
    file: BinaryIO, blocks: Iterable[np.ndarray], dtype: np.dtype, shape: tuple[int, ...], digest: "hashlib._Hash"
) -> None:
    """Write a .npy file block by block. A memory-mapped file would kill the process, by SIGBUS, on a full disk."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    rows = 0
    for block in blocks:
        if block.dtype != dtype or block.shape[1:] != shape[1:]:
            raise ValueError(f"a block of {block.dtype} {block.shape} in an array of {dtype} {shape}")
        data = _bytes(block)
        digest.update(data)
        file.write(data)
        rows += len(block)
    if rows != shape[0]:
        raise ValueError(f"{rows} rows in an array of {shape}")
    file.flush()
    os.fsync(file.fileno())  # the disk may turn out to be full only here, which must be before any file is renamed


def open_store(folder: Path) -> Store:
    """Map the data set in `folder`. Raises UserError when it is missing, incomplete or inconsistent."""
    remedy = f"run `us3l prepare {folder.name}`"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if len(missing) == len(FILES):
        raise UserError(f"{folder}: there is no prepared data set; {remedy}")
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} missing from the prepared data set; {remedy} again")
    try:
        meta = read_json(folder / "meta.json")
        folders = meta.pop("folders", {})
        train, test = (
            Split(_open_images(folder, name, meta, folders), _open_labels(folder, name, meta))
            for name in ("train", "test")
        )
        sha256 = meta.pop("sha256")
        if _content_hash(meta, train, test) != sha256:
            raise ValueError("the arrays are not those that meta.json tells of")
        store = Store(train, test, tuple(meta["classes"]), sha256)
    except _DAMAGED as error:
        raise UserError(f"{folder}: the prepared data set is damaged ({error}); {remedy} again") from None
    for split in (train, test):
        if isinstance(split.images, Files):
            split.images.check()
    return store


def _digest(meta: dict[str, Any]) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps(meta).encode())


def _content_hash(meta: dict[str, Any], *splits: Split) -> str:
    """Return the SHA-256 that `write_store` returned: a pass over all bytes, at a gigabyte a second or more."""
    digest = _digest(meta)
    for split in splits:
        digest.update(_bytes(split.images.table if isinstance(split.images, Files) else split.images))
        digest.update(_bytes(split.labels))
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _open_images(folder: Path, name: str, meta: dict[str, Any], folders: dict[str, str]) -> np.ndarray | Files:
    images = np.lib.format.open_memmap(folder / f"{name}_images.npy", mode="r")
    count, shape = meta["sizes"][name], meta["shape"]
    dtype = np.dtype("u1") if shape else table_dtype(images.dtype["path"].itemsize)
    expected = (count, *(shape or ()))
    if images.dtype != dtype or images.shape != expected:
        raise ValueError(f"{name}_images.npy holds {images.dtype} {images.shape}, meta.json says {dtype} {expected}")
    return images if shape else Files(folder / folders[name], images)


def _open_labels(folder: Path, name: str, meta: dict[str, Any]) -> np.ndarray:
    labels = np.lib.format.open_memmap(folder / f"{name}_labels.npy", mode="r")
    count, classes = meta["sizes"][name], len(meta["classes"])
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise ValueError(f"{name}_labels.npy holds {labels.dtype} {labels.shape}, meta.json says int64 {(count,)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{name}_labels.npy holds labels outside 0..{classes - 1}")
    return labels
