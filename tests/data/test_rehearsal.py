"""Views on the rehearsed GPU (tests/support/rehearsal.py) are those of the CPU, whatever an augmentation says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import write
from rehearsal import CPU, GPU, on_cpu, rehearsal
from sources import files
from torch import Tensor

from us3l.data.decoded import Decoded
from us3l.data.images import Images, first_view
from us3l.data.resident import Resident, to_device
from us3l.data.store import Split
from us3l.data.stream import Stream
from us3l.params.dataset import Augmentation, Normalize
from us3l.params.dataset import TestView as PlainView
from us3l.params.runs import Batch
from us3l.utils.distributed import World
from us3l.utils.philox import Purpose, RandomKey

pytest.importorskip("triton", reason="PyTorch comes with Triton on Linux only")

NORMALIZE = Normalize(mean=[0.4] * 3, std=[0.3] * 3)
KEY = RandomKey(3, Purpose.AUGMENT, 1)
OPTIONS: dict[str, Any] = {
    "resized_crop": {"size": 12, "scale": (0.2, 1.0), "interpolation": "bicubic"},
    "affine": {"degrees": 20.0, "translate": 0.1, "scale": (0.8, 1.2)},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "probability": 0.8},
    "grayscale": 0.5,
    "blur": {"kernel_size": 5, "probability": 0.5},
    "flip": 0.5,
    "solarize": {"probability": 0.5},
}
VIEWS = {
    "nothing": {},
    **{name: {name: settings} for name, settings in OPTIONS.items()},
    "bilinear": {"resized_crop": {"size": 12, "interpolation": "bilinear"}, "flip": 0.5},
    "everything": OPTIONS,
}
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)


def resident(device: torch.device) -> Images:
    return Resident(to_device(PIXELS, device))


@pytest.fixture
def in_files(tmp_path: Path) -> Callable[[torch.device], Images]:
    paths = [tmp_path / f"{index}.png" for index in range(10)]
    for index, path in enumerate(paths):
        write(path, index, 30, 40)
    return lambda device: Decoded(files(tmp_path, paths), device)


def augmented(images: Images, views: list[Augmentation]) -> list[Tensor]:
    batches = torch.arange(10, device=images.device).split(4)
    return [view for of_batch in images.augmented(batches, views, NORMALIZE, KEY) for view in of_batch]


def check(views: Callable[[torch.device], list[Tensor]]) -> None:
    with rehearsal():
        found = views(GPU)
    expected = views(CPU)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        # Rounding may put a pixel on the other side of solarize's threshold.
        assert (on_cpu(one) - other).abs().quantile(0.99) < 1e-4


@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS.keys())
def test_every_option_of_a_view(options: dict[str, Any]) -> None:
    views = [Augmentation.model_validate(options)] * 2 + [Augmentation.model_validate(OPTIONS)]
    check(lambda device: augmented(resident(device), views))


def test_images_in_files(in_files: Callable[[torch.device], Images]) -> None:
    views = [Augmentation.model_validate(OPTIONS), Augmentation.model_validate(VIEWS["bilinear"])]
    check(lambda device: augmented(in_files(device), views))


@pytest.mark.parametrize("view", [PlainView(), PlainView(resize=20, center_crop=12, interpolation="bicubic")])
def test_views_of_a_test(view: PlainView, in_files: Callable[[torch.device], Images]) -> None:
    for images in (resident, in_files):
        check(lambda device, images=images: list(images(device).plain(torch.arange(10).split(4), view, NORMALIZE)))


def test_the_first_view_of_a_data_set(in_files: Callable[[torch.device], Images]) -> None:
    for images in (resident, in_files):
        for view in (Augmentation.model_validate(OPTIONS), PlainView()):
            check(lambda device, images=images, view=view: [first_view(images(device), view, NORMALIZE)])


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_shards_of_an_epoch(shuffled: bool) -> None:
    def views(device: torch.device) -> list[Tensor]:
        split, views = Split(PIXELS, np.arange(10)), [Augmentation.model_validate(VIEWS["bilinear"])] * 2
        stream = Stream(split, Batch(size=4, shards=2), views, NORMALIZE, 0, World(0, 1, device), shuffled)
        shards = [shard for step in stream.shards(1) for shard in step]
        return [each.float() for shard in shards for each in (*shard.views, *(shard.shuffled or ()), shard.labels)]

    check(views)
