"""params.yaml for a folder of images: what it says follows from their number, sizes, colours and classes."""

import json
import os
import re
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from us3l.data.sources.folder import FileTable, Squares, read_folder
from us3l.params.dataset import Folder
from us3l.utils.errors import UserError

TEST_FRACTION = 0.2  # of the images of each class, where there is no folder of test images
FEWEST_IMAGES = 16  # of a training: eight steps an epoch, of two images each
SAMPLE = 1000  # images that are looked at, evenly spread over those of the training
LARGEST_ARRAY = 4 * 2**30  # bytes of a prepared data set; images of larger ones stay in their files
SMALL = 64  # pixels: up to here, networks have the form for CIFAR, which does not shrink images at once


def image_params(images: Path, project: Path, template: Path) -> str:
    """Return the text of the params file of a project that trains on a folder of images.

    Raises UserError where the images cannot be used.
    """
    source = _source(images)
    counts, classes, sample = _look_at(images, source)
    size, shorter = _image_size(sample)
    in_memory = sum(counts) * size**2 * 3 <= LARGEST_ARRAY
    name = re.sub("[^a-z0-9]+", "-", images.resolve().name.lower()).strip("-") or "images"
    values = {
        "name": name,
        "title": json.dumps(f"Linear accuracy on {images.resolve().name} (top-1, %)", ensure_ascii=False),
        "counts": f"{counts[0]:,} training and {counts[1]:,} test images of {len(classes)} classes.",
        "classes": json.dumps(", ".join(classes), ensure_ascii=False),
        "source": _source_text(source, project, size if in_memory else None),
        **_view_values(sample, size, shorter, in_memory),
        **_training_values(counts[0]),
        **_classifier_values(counts[0]),
    }
    return Template(template.read_text(encoding="utf-8")).substitute(values)


def _source(images: Path) -> Folder:
    """Find the training and test images. Raises UserError where there is no such folder."""
    if not images.is_dir():
        raise UserError(f"{images}: there is no such folder; name one with a folder of images for each class")
    train, tests = images / "train", [images / name for name in ("test", "val") if (images / name).is_dir()]
    if train.is_dir() and tests:
        return Folder(kind="folder", train=str(train), test=str(tests[0]))
    return Folder(kind="folder", train=str(train if train.is_dir() else images), test_fraction=TEST_FRACTION)


def _look_at(images: Path, source: Folder) -> tuple[tuple[int, int], tuple[str, ...], FileTable]:
    """Count training and test images, name the classes, and take a sample of the training images.

    Raises UserError where the folders are not those of classes, or the images too few.
    """
    found = read_folder(source)
    files = found.train.images
    assert isinstance(files, FileTable)  # the source has no image_size
    if len(files) < FEWEST_IMAGES:
        what = f"{len(files)} training images are too few to compare with each other"
        raise UserError(f"{images}: {what}; give {FEWEST_IMAGES} or more")
    spread = np.linspace(0, len(files) - 1, min(len(files), SAMPLE)).astype(int)
    sample = FileTable(files.folder, [files.paths[index] for index in spread])
    return (len(files), len(found.test.labels)), found.classes, sample


def _image_size(sample: FileTable) -> tuple[int, int]:
    """Choose height and width to train at; return them and the median of the images' shorter sides, in pixels.

    Raises UserError at an unreadable image.
    """
    table = sample[:]
    shorter = int(np.median(np.minimum(table["height"], table["width"])))
    unit = 8 if shorter <= SMALL else 32
    return min(max(shorter // unit * unit, 8), 224), shorter


def _source_text(source: Folder, project: Path, size: int | None) -> str:
    test = f"test_fraction: {TEST_FRACTION}" if source.test is None else f"test: {_path(source.test, project)}"
    image_size = "" if size is None else f", image_size: {size}"
    return f"{{kind: folder, train: {_path(source.train, project)}, {test}{image_size}}}"


def _path(folder: str, project: Path) -> str:
    """Write a path as YAML, from the project's folder where it lies below that."""
    path, top = Path(folder).resolve(), project.resolve()
    return json.dumps(str(path.relative_to(top) if path.is_relative_to(top) else path), ensure_ascii=False)


def _view_values(sample: FileTable, size: int, shorter: int, in_memory: bool) -> dict[str, Any]:
    mean, std, is_grey = _colors(sample, size)
    jitter = "{brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, probability: 0.8}"
    operations = [f"color_jitter: {jitter}", "grayscale: 0.2"]
    if is_grey:
        operations = ["color_jitter: {brightness: 0.4, contrast: 0.4, probability: 0.8} # all images are grey"]
    if size > SMALL:
        operations.append(f"blur: {{kernel_size: {size // 20 * 2 + 1}, sigma: [0.1, 2.0], probability: 0.5}}")
    kept = "Squares" if in_memory else "Too many for the memory, so decoded at each use; views"
    form = "CIFAR, which keeps small images large" if size <= SMALL else "ImageNet"
    return {
        "size": size,
        "about_size": f"{kept} of {size} pixels: the shorter side of an image has {shorter} in the median.",
        "backbone": "cifar-resnet18" if size <= SMALL else "resnet18",
        "about_backbone": f"the form for {form}",
        "sampled": f"{len(sample):,}",
        "mean": mean,
        "std": std,
        "operations": "\n          ".join(operations),
        "test_view": "" if in_memory else f"      test: {{resize: {size * 8 // 7}, center_crop: {size}}}\n",
    }


def _colors(sample: FileTable, size: int) -> tuple[list[float], list[float], bool]:
    """Return mean and standard deviation of each channel in [0, 1], and whether all images are grey.

    Raises UserError where all pixels are the same.
    """
    x = Squares(sample.paths, size)[:]
    shares = np.stack([np.bincount(x[..., channel].ravel(), minlength=256) for channel in range(3)]) / x[..., 0].size
    values = np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt(shares @ values**2 - mean**2)
    if std.min() < 1e-3:
        raise UserError(f"{sample.folder}: all pixels of a colour have the same value; give images that differ")
    is_grey = bool((x == x[..., :1]).all())
    return [round(each, 4) for each in mean.tolist()], [round(each, 4) for each in std.tolist()], is_grey


def _training_values(images: int) -> dict[str, Any]:
    batch = min(_power_of_two(images // 8), 256)
    epochs, like = (400, "CIFAR-100's 50,000") if images <= 100_000 else (100, "ImageNet's 1.28 million")
    return {
        "epochs": epochs,
        "about_epochs": f"As many as the official code takes for {like} images; 4 show that all stages work.",
        "batch": batch,
        "about_batch": f"{images // batch:,} steps an epoch. The loss compares the images of a shard with each other.",
        "shards": max(batch // 128, 1),
        "lr": 0.5 * batch / 512,
        "threads": min(len(os.sched_getaffinity(0)), 8),
    }


def _classifier_values(images: int) -> dict[str, Any]:
    batch = min(_power_of_two(images), 512)
    return {"classifier_batch": batch, "classifier_lr": 30.0 * batch / 512, "calibration_batch": min(batch, 128)}


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is at most `number`."""
    return 1 << (number.bit_length() - 1)
