"""Reader of folders of class folders of images."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2.functional import center_crop, resize

from us3l.data.files import table_dtype
from us3l.data.picture import MOST_BYTES, open_picture
from us3l.data.sources.subset import read_subset
from us3l.data.store import DatasetSource, SplitSource
from us3l.params.dataset import Folder
from us3l.utils.errors import UserError
from us3l.utils.reading import read_plain


@dataclass(frozen=True)
class Listing:
    """Image files of each class, below a folder."""

    folder: Path
    classes: dict[str, list[Path]]


def read_folder(source: Folder) -> DatasetSource:
    """Read the images of the folders, cut to squares of `source.image_size`, or as files where it is None.

    Raises UserError, also while the images are read: only then is an unreadable one found.
    """
    train = _list_images(Path(source.train).absolute(), source.page)
    if source.test is not None:
        test = _list_images(Path(source.test).absolute(), source.page)
        _check_same_classes(train, test)
    else:
        assert source.test_fraction is not None  # params require one of the two
        train, test = hold_out(train, source.test_fraction)
    if source.subset is not None:
        train = _keep_subset(train, Path(source.subset).absolute())
    return DatasetSource(
        classes=tuple(train.classes),
        shape=image_shape(source.image_size),
        train=split_source(train, source.image_size),
        test=split_source(test, source.image_size),
    )


def _list_images(folder: Path, page: str | None) -> Listing:
    if not folder.is_dir():
        elsewhere = f", or get the images from {page}" if page else ""
        raise UserError(f"{folder}: there is no such folder; correct its path in params.yaml{elsewhere}")
    try:
        classes = {path.name: _images_in(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    except (OSError, RecursionError) as error:
        raise UserError(f"{folder}: its folders cannot be listed ({error}); correct its path in params.yaml") from None
    if len(classes) < 2:
        found = f"is only the class folder {next(iter(classes))}" if classes else "are no class folders"
        raise UserError(f"{folder}: there {found}; put the images of each class into a folder, two or more of them")
    for name, images in classes.items():
        if not images:
            suffixes = " ".join(IMG_EXTENSIONS)
            raise UserError(f"{folder / name}: the class has no images ({suffixes}); add some or remove the folder")
    return Listing(folder, classes)


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and not path.is_dir())


def _check_same_classes(train: Listing, test: Listing) -> None:
    if differing := sorted(train.classes.keys() ^ test.classes.keys()):
        raise UserError(f"{train.folder} and {test.folder}: only one of them has the classes {', '.join(differing)}")


def _keep_subset(listing: Listing, subset: Path) -> Listing:
    """Keep the images that a list names, in the folder's order; a class may end up without any."""
    kept = read_subset(subset, listing.folder, [path for images in listing.classes.values() for path in images])
    return Listing(
        listing.folder, {name: [path for path in images if path in kept] for name, images in listing.classes.items()}
    )


def hold_out(listing: Listing, fraction: float) -> tuple[Listing, Listing]:
    """Split off a test set, the same fraction of every class, leaving at least one image of it on either side.

    Raises UserError for a class of one image.
    """
    for name, images in listing.classes.items():
        if len(images) < 2:
            raise UserError(f"{listing.folder / name}: one image cannot be split into training and test; add another")
    return split_classes(listing, lambda images: min(max(round(fraction * images), 1), images - 1))


def split_classes(listing: Listing, held_out: Callable[[int], int]) -> tuple[Listing, Listing]:
    """Hold out `held_out(n)` of the n images of each class as the test set, independently of the other classes."""
    train, test = {}, {}
    for name, images in listing.classes.items():
        order, count = np.random.default_rng(0).permutation(len(images)), held_out(len(images))
        test[name] = [images[index] for index in sorted(order[:count])]
        train[name] = [images[index] for index in sorted(order[count:])]
    return Listing(listing.folder, train), Listing(listing.folder, test)


def image_shape(size: int | None) -> tuple[int, int, int] | None:
    """Return height, width and channels of prepared images; None where they stay in their files."""
    return None if size is None else (size, size, 3)


def split_source(listing: Listing, size: int | None) -> SplitSource:
    """Return a split of all images of a listing, class by class."""
    counts = [len(images) for images in listing.classes.values()]
    paths = [path for images in listing.classes.values() for path in images]
    return source_of(np.repeat(np.arange(len(counts)), counts), listing.folder, paths, size)


def source_of(labels: np.ndarray, folder: Path, paths: list[Path], size: int | None) -> SplitSource:
    """Return a split of images below a folder, in order: their squares of `size`, or their files where it is None."""
    if size is None:
        return SplitSource(labels, FileTable(folder, paths), folder)
    return SplitSource(labels, Squares(paths, size))


@dataclass(frozen=True)
class Squares:
    """Images, decoded and cut to squares of `size` pixels when they are read."""

    paths: list[Path]
    size: int
    dtype = np.dtype("u1")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return squares [n, size, size, 3] uint8. Raises UserError at an unreadable image."""
        return np.stack(_in_threads(partial(_read_square, size=self.size), self.paths[rows]))


@dataclass(frozen=True)
class FileTable:
    """The table of image files below a folder (see `us3l.data.files.Files`), which are looked at when it is read."""

    folder: Path
    paths: list[Path]

    @cached_property
    def dtype(self) -> np.dtype:
        return table_dtype(max(map(len, self._names), default=1))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return rows of the table, [n]. Raises UserError at an unreadable image."""
        facts = zip(self._names[rows], _in_threads(_facts, self.paths[rows]), strict=True)
        return np.array([(name, *of_file) for name, of_file in facts], self.dtype)

    @cached_property
    def _names(self) -> list[bytes]:
        return [os.fsencode(path.relative_to(self.folder)) for path in self.paths]


def _in_threads(read: Callable[[Path], Any], paths: list[Path]) -> list[Any]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(read, paths))


def _facts(path: Path) -> tuple[int, int, int, str]:
    """Read bytes, height, width and SHA-256 of an image, and decode all of it, coarsely, to check that it is whole."""
    content = _read(path)
    with open_picture(path, content) as image:
        width, height = image.size
        image.draft("RGB", (1, 1))
        image.load()
    return len(content), height, width, hashlib.sha256(content).hexdigest()


def _read_square(path: Path, size: int) -> np.ndarray:
    with open_picture(path, _read(path)) as image:
        return np.asarray(center_crop(resize(image.convert("RGB"), [size]), [size]))


def _read(path: Path) -> bytes:
    try:
        return read_plain(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path}: not a readable image ({error.strerror}); replace or remove it") from None
