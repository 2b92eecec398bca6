"""Data sets for transfer learning, read by torchvision's own classes.

Training and test sets: Aircraft trainval and test (by variant), DTD train with val and test of partition 1, Flowers-102
train with val and test, Food-101 train and test, Pets trainval and test. Caltech-101 has no official split: 30 training
images of each class, the others for the test, drawn with a fixed seed; its background class is left out.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from us3l.data.sources.folder import (
    Listing,
    hold_out,
    image_shape,
    source_of,
    split_classes,
    split_source,
)
from us3l.data.sources.places import image_folders
from us3l.data.store import DatasetSource, SplitSource
from us3l.params.dataset import Transfer
from us3l.utils.errors import UserError
from us3l.utils.reading import open_plain

# Bytes of a list of images; the largest, of Food-101, has 2 MB. A MATLAB file may unpack to a thousand times as much.
MOST_BYTES = {".txt": 2**24, ".json": 2**24, ".mat": 2**18}
_CALTECH_TRAIN = 30  # images of each class


@dataclass(frozen=True)
class _TransferSet:
    """A data set: torchvision's class, its folder below root, its web page, and the splits to train on."""

    reader: type
    folder: str
    page: str
    train: tuple[str, ...] = ()


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_SETS = {
    "aircraft": _TransferSet(datasets.FGVCAircraft, "fgvc-aircraft-2013b", f"{_OXFORD}/fgvc-aircraft/", ("trainval",)),
    "caltech101": _TransferSet(
        datasets.Caltech101, "caltech101/101_ObjectCategories", "https://data.caltech.edu/records/20086"
    ),
    "dtd": _TransferSet(datasets.DTD, "dtd/dtd", f"{_OXFORD}/dtd/", ("train", "val")),
    "flowers102": _TransferSet(datasets.Flowers102, "flowers-102/jpg", f"{_OXFORD}/flowers/102/", ("train", "val")),
    "food101": _TransferSet(
        datasets.Food101, "food-101/images", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", ("train",)
    ),
    "pets": _TransferSet(datasets.OxfordIIITPet, "oxford-iiit-pet/images", f"{_OXFORD}/pets/", ("trainval",)),
}


def read_transfer(source: Transfer) -> DatasetSource:
    """Read the images in torchvision's order, cut to squares of `source.image_size`, or as files where it is None.

    Raises UserError where files are missing or torchvision cannot read them, and for an unreadable image, also while
    the images are read.
    """
    known = _SETS[source.kind]
    if source.kind == "caltech101":
        return _read_caltech(source, _open(source))
    train = [_open(source, split=name) for name in known.train]
    test = _open(source, split="test")
    classes = tuple(test.classes)
    if any(tuple(each.classes) != classes for each in train):
        raise UserError(f"{_folder(source)}: training and test have different classes; get the data set again")
    return DatasetSource(
        classes=classes,
        shape=image_shape(source.image_size),
        train=_joined_splits(train, source),
        test=_joined_splits([test], source),
    )


def _folder(source: Transfer) -> Path:
    return Path(source.root).absolute() / _SETS[source.kind].folder


def _open(source: Transfer, **arguments: str) -> Any:
    known, folder = _SETS[source.kind], _folder(source)
    # Caltech101 creates its folders before it checks that they exist.
    if not source.download and not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; set download: true in params.yaml, or get the data set from "
            f"{known.page}, or name a folder of class folders with kind: folder"
        )
    [top] = image_folders(source)
    _check_lists(top.absolute(), known.page)
    try:
        return known.reader(str(Path(source.root).absolute()), download=source.download, **arguments)
    except Exception as error:  # network, archives and annotations raise many kinds of exceptions
        what = " ".join(str(error).split())
        raise UserError(f"{folder}: torchvision cannot read the data set ({what}); get it from {known.page}") from None


def _check_lists(folder: Path, page: str) -> None:
    """Raise UserError where a file beside the images is none, or too large: torchvision would wait for it."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if Path(name).suffix in MOST_BYTES):
            try:
                with open_plain(path, MOST_BYTES[path.suffix]):
                    pass
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}); get it again from {page}") from None


def _joined_splits(parts: list[Any], source: Transfer) -> SplitSource:
    paths = [Path(path) for part in parts for path in (part._images if hasattr(part, "_images") else part._image_files)]
    labels = np.array([label for part in parts for label in part._labels], np.int64)
    return source_of(labels, _folder(source), paths, source.image_size)


def _read_caltech(source: Transfer, images: datasets.Caltech101) -> DatasetSource:
    folder = _folder(source)
    classes: dict[str, list[Path]] = {name: [] for name in images.categories}
    for label, number in zip(images.y, images.index, strict=True):
        name = images.categories[label]
        classes[name].append(folder / name / f"image_{number:04d}.jpg")
    listing = Listing(folder, classes)
    train, test = _split_caltech(listing) if source.test_fraction is None else hold_out(listing, source.test_fraction)
    return DatasetSource(
        classes=tuple(classes),
        shape=image_shape(source.image_size),
        train=split_source(train, source.image_size),
        test=split_source(test, source.image_size),
    )


def _split_caltech(listing: Listing) -> tuple[Listing, Listing]:
    for name, images in listing.classes.items():
        if len(images) <= _CALTECH_TRAIN:
            what = f"{len(images)} images are too few for {_CALTECH_TRAIN} of training and one of test"
            raise UserError(f"{listing.folder / name}: {what}; give test_fraction in params.yaml")
    return split_classes(listing, lambda images: images - _CALTECH_TRAIN)
