"""Conversion of an archive, or of image files, to arrays of pixels on disk."""

import pickle
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.setting import CLASSES, IMAGE_SIZE, Setting
from benchmarks.straightforward import reading
from us3l.data.sources.cifar import read_cifar
from us3l.data.sources.folder import read_folder
from us3l.data.store import write_store
from us3l.params.dataset import Folder

MAX_IN_ARCHIVE, MAX_FILES = 25_000, 1_024  # images of each split
PHOTO, SQUARE = (500, 375), 256  # width and height of a JPEG file; side of the square cut from it


def cases(setting: Setting) -> Iterator[Case]:
    with TemporaryDirectory() as name:
        yield _archive(setting, Path(name))
    with TemporaryDirectory() as name:
        yield _files(setting, Path(name))


def _archive(setting: Setting, folder: Path) -> Case:
    images, archive = min(10 * setting.images, MAX_IN_ARCHIVE), folder / "archive.tar.gz"
    new_folder = _new_folders(folder)
    _write_archive(archive, images)
    return Case(
        name="an archive of CIFAR-100",
        unit="image",
        sides={
            OURS: Side(lambda: write_store(new_folder(), read_cifar(archive, "cifar100", None)), 2 * images),
            STRAIGHTFORWARD: Side(lambda: reading.read_archive(archive, new_folder()), 2 * images),
        },
        images=1,
        note=f"{images} training and {images} test images of noise, on the CPU; ours with a checksum of the contents",
    )


def _files(setting: Setting, folder: Path) -> Case:
    new_folder, images = _new_folders(folder), min(max(8, setting.images // 4), MAX_FILES)
    for split in ("train", "test"):
        _write_photos(folder / split, images)
    source = Folder(kind="folder", train=str(folder / "train"), test=str(folder / "test"), image_size=SQUARE)

    def straightforward() -> None:
        for split in ("train", "test"):
            reading.read_folder(folder / split, SQUARE, new_folder())

    return Case(
        name="folders of JPEG files",
        unit="image",
        sides={
            OURS: Side(lambda: write_store(new_folder(), read_folder(source)), 2 * images),
            STRAIGHTFORWARD: Side(straightforward, 2 * images),
        },
        images=1,
        note=f"{images} training and {images} test images of {PHOTO[0]}x{PHOTO[1]} pixels, cut to {SQUARE}x{SQUARE}; "
        "ours decodes in threads, on all cores of the CPU",
    )


def _new_folders(parent: Path) -> Callable[[], Path]:
    """Return a function that makes a new folder in `parent` at each call."""
    numbers = count()

    def new_folder() -> Path:
        folder = parent / f"turn{next(numbers)}"
        folder.mkdir()
        return folder

    return new_folder


def _write_archive(archive: Path, images: int) -> None:
    names = [f"class{index}" for index in range(CLASSES)]
    members = {"train": _split(images), "test": _split(images), "meta": {"fine_label_names": names}}
    with tarfile.open(archive, "w:gz", compresslevel=1) as opened:
        for name, content in members.items():
            data = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(data)
            opened.addfile(member, BytesIO(data))


def _split(images: int) -> dict[str, object]:
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3 * IMAGE_SIZE * IMAGE_SIZE), np.uint8)
    return {"data": pixels, "fine_labels": [index % CLASSES for index in range(images)]}


def _write_photos(folder: Path, images: int) -> None:
    """Write smooth colours with some noise, in two classes: JPEG compresses them about as it does photographs."""
    draw = np.random.default_rng(0)
    for index in range(images):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize(PHOTO, Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse) + draw.normal(0, 12, (PHOTO[1], PHOTO[0], 3))
        path = folder / f"class{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
