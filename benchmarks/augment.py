"""Two random views of each image."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.peers import kornia_view, side
from benchmarks.setting import IMAGE_SIZE, Setting
from benchmarks.straightforward.views import loader, random_view
from us3l.data.images import open_images
from us3l.data.store import Split
from us3l.utils.philox import Purpose, RandomKey


def cases(setting: Setting) -> Iterator[Case]:
    split, views = setting.store(setting.images).train, setting.views
    two_views = [random_view(augmentation, views.normalize) for augmentation in views.pretrain]
    loaded = loader(split, two_views, setting.batch, setting.workers, setting.device)

    def straightforward() -> None:
        for both, _ in loaded:
            for view in both:
                view.to(setting.device, non_blocking=True)

    channels = setting.plan.data.dataset.channels
    yield Case(
        name="two views of an image",
        unit="image",
        sides={
            OURS: _ours(setting, split),
            STRAIGHTFORWARD: Side(straightforward, setting.images),
            "kornia": side("kornia", lambda: _kornia(setting, split)),
        },
        images=1,
        traffic=IMAGE_SIZE * IMAGE_SIZE * channels * (1 + 2 * 4),
        note=f"{setting.images} images in batches of {setting.batch}; processes that load the straightforward way: "
        f"{setting.workers}; bytes are those of the image and of its two views",
    )


def _ours(setting: Setting, split: Split) -> Side:
    images = open_images(split, setting.device)
    batches = torch.arange(setting.images, device=setting.device).split(setting.batch)
    key = RandomKey(setting.seed, Purpose.AUGMENT, 0)
    views = setting.views

    def turn() -> None:
        for _ in images.augmented(batches, views.pretrain, views.normalize, key):
            pass

    return Side(turn, setting.images)


def _kornia(setting: Setting, split: Split) -> Side:
    assert isinstance(split.images, np.ndarray)  # in memory, not in files
    pixels, views = torch.from_numpy(split.images).to(setting.device), setting.views
    both = [kornia_view(augmentation, views.normalize, setting.device) for augmentation in views.pretrain]

    @torch.no_grad()
    def turn() -> None:
        for batch in pixels.split(setting.batch):
            images = batch.permute(0, 3, 1, 2).float().div(255)
            for view in both:
                view(images)

    return Side(turn, setting.images)
