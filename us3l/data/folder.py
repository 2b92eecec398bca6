"""Folders of class folders of images."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2.functional import center_crop, resize

from us3l.data.store import Contents, Unwritten
from us3l.data.subset import read_subset
from us3l.errors import UserError
from us3l.params.data import Folder

_BLOCK = 256  # images decoded at a time


@dataclass(frozen=True)
class Listing:
    """The image files of each class."""

    folder: Path
    classes: dict[str, list[Path]]


def read_folder(source: Folder) -> Contents:
    """The squares of `source.image_size` that the images of the folders are cut to.

    Raises UserError, also while the blocks are read, which is when an image may turn out to be unreadable.
    """
    train = _list(Path(source.train).absolute())
    if source.test is None:
        train, test = hold_out(train, source.test_fraction)
    else:
        test = _list(Path(source.test).absolute())
        _check_same_classes(train, test)
    if source.subset is not None:
        train = _keep(train, Path(source.subset).absolute())
    return Contents(
        classes=tuple(train.classes),
        shape=(source.image_size, source.image_size, 3),
        train=unwritten(train, source.image_size),
        test=unwritten(test, source.image_size),
    )


def _list(folder: Path) -> Listing:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; correct its path in params.yaml")
    classes = {path.name: _images(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    if len(classes) < 2:
        found = f"is only the class folder {next(iter(classes))}" if classes else "are no class folders"
        raise UserError(f"{folder}: there {found}; put the images of each class into a folder, two or more of them")
    for name, images in classes.items():
        if not images:
            suffixes = " ".join(IMG_EXTENSIONS)
            raise UserError(f"{folder / name}: the class has no images ({suffixes}); add some or remove the folder")
    return Listing(folder, classes)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and not path.is_dir())


def _check_same_classes(train: Listing, test: Listing) -> None:
    if differing := sorted(train.classes.keys() ^ test.classes.keys()):
        raise UserError(f"{train.folder} and {test.folder}: only one of them has the classes {', '.join(differing)}")


def _keep(listing: Listing, subset: Path) -> Listing:
    """The images that a list names, in the folder's order; a class may be left without any."""
    kept = read_subset(subset, listing.folder, [path for images in listing.classes.values() for path in images])
    return Listing(
        listing.folder, {name: [path for path in images if path in kept] for name, images in listing.classes.items()}
    )


def hold_out(listing: Listing, fraction: float) -> tuple[Listing, Listing]:
    """Split every class alike, at least one image to either side. Raises UserError for a class of one image."""
    for name, images in listing.classes.items():
        if len(images) < 2:
            raise UserError(f"{listing.folder / name}: one image cannot be split into training and test; add another")
    return split(listing, lambda images: min(max(round(fraction * images), 1), images - 1))


def split(listing: Listing, held_out: Callable[[int], int]) -> tuple[Listing, Listing]:
    """Training and test: of n images of a class `held_out(n)` are for the test, whatever the other classes are."""
    train, test = {}, {}
    for name, images in listing.classes.items():
        order, count = np.random.default_rng(0).permutation(len(images)), held_out(len(images))
        test[name] = [images[index] for index in sorted(order[:count])]
        train[name] = [images[index] for index in sorted(order[count:])]
    return Listing(listing.folder, train), Listing(listing.folder, test)


def unwritten(listing: Listing, size: int) -> Unwritten:
    """All images of a listing, class by class."""
    counts = [len(images) for images in listing.classes.values()]
    paths = [path for images in listing.classes.values() for path in images]
    return Unwritten(np.repeat(np.arange(len(counts)), counts), blocks(paths, size))


def blocks(paths: list[Path], size: int) -> Iterator[np.ndarray]:
    """The images' squares in order, each block [n, size, size, 3] uint8. Raises UserError at an unreadable image."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _BLOCK):
            yield np.stack(list(pool.map(partial(_read_square, size=size), paths[start : start + _BLOCK])))


def _read_square(path: Path, size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(center_crop(resize(image.convert("RGB"), [size]), [size]))
    except Exception as error:  # each of Pillow's decoders has its own ways to fail
        raise UserError(f"{path}: not a readable image ({error}); replace or remove it") from None
