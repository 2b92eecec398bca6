"""Parameters of augmentations, distributed as torchvision's, from independent uniform numbers u: [B, n] in [0, 1).

Every tensor returned has one entry per image. n is the number of columns of u that a function reads.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from us3l.params.dataset import Affine, Blur, ColorJitter, ResizedCrop

TRIES = 10


class Box(NamedTuple):
    """Boxes in whole pixels, each [B] int64. A box of negative width is read leftwards from its right edge, `left`."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class Motion(NamedTuple):
    """Affine maps: angle in degrees (clockwise), shift right and down in whole pixels, zoom; each [B] float64."""

    angle: Tensor
    right: Tensor
    down: Tensor
    zoom: Tensor


class Jitter(NamedTuple):
    """Color jitter of images: the order of its operations, and the factor of each.

    order: [B, 4] int64, the operations 0 ... 3 in the order they are applied; factors: [B, 4] float64 of brightness,
    contrast, saturation and hue, which are operations 0 ... 3. Factors of 1, 1, 1 and 0 leave an image unchanged.
    """

    order: Tensor
    factors: Tensor


def box(u: Tensor, settings: ResizedCrop, height: Tensor | int, width: Tensor | int) -> Box:
    """Draw boxes as RandomResizedCrop.get_params: the first of ten tries that fits the image, else a centre crop.

    n = 22. Height and width of the images are one for all, or [B, 1] int64.
    """
    area = height * width * _between(u[:, :TRIES], *settings.scale)
    aspect = _between(u[:, TRIES : 2 * TRIES], *map(math.log, settings.ratio)).exp()
    widths, heights = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    some, first = fits.any(1, keepdim=True), fits.int().argmax(1, keepdim=True)
    height, width = (torch.zeros_like(first) + side for side in (height, width))
    h, w = (
        torch.where(some, tries.gather(1, first), centre)
        for tries, centre in zip((heights, widths), _centre(settings, height, width), strict=True)
    )
    top, left = (u[:, -2:-1] * (height - h + 1)).long(), (u[:, -1:] * (width - w + 1)).long()
    places = (torch.where(some, top, (height - h) // 2), torch.where(some, left, (width - w) // 2))
    return Box(*(each[:, 0] for each in (*places, h, w)))


def _centre(settings: ResizedCrop, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return height and width of the largest box in each image that has an allowed aspect ratio."""
    narrowest, widest = settings.ratio
    tallest, broadest = (width.double() / narrowest).round().long(), (height.double() * widest).round().long()
    return height.minimum(tallest), width.minimum(broadest)


def mirrored(box: Box, chosen: Tensor) -> Box:
    """Mirror the boxes of the chosen images, [B] bool: they are read from right to left."""
    return box._replace(left=box.left + box.width * chosen, width=box.width * (1 - 2 * chosen.long()))


def motion(u: Tensor, settings: Affine, height: int, width: int) -> Motion:
    """Draw affine maps as RandomAffine.get_params. n = 4."""
    angle = _between(u[:, 0], -settings.degrees, settings.degrees)
    right, down = (
        _between(u[:, column], -settings.translate * side, settings.translate * side).round()
        for column, side in ((1, width), (2, height))
    )
    return Motion(angle, right, down, _between(u[:, 3], *settings.scale))


def jitter(u: Tensor, settings: ColorJitter) -> Jitter:
    """Draw color jitter as ColorJitter.get_params within RandomApply; images not chosen get idle factors. n = 9."""
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    factors = [_between(u[:, 5 + i], max(0.0, 1 - s), 1 + s) for i, s in enumerate(strengths)]
    factors.append(_between(u[:, 8], -settings.hue, settings.hue))
    chosen = u[:, 0] < settings.probability
    applied = [torch.where(chosen, factor, idle) for factor, idle in zip(factors, (1.0, 1.0, 1.0, 0.0), strict=True)]
    return Jitter(u[:, 1:5].argsort(stable=True, dim=1), torch.stack(applied, 1))


def sigma(u: Tensor, settings: Blur) -> Tensor:
    """Draw standard deviations [B] float64 as GaussianBlur.get_params. n = 1."""
    return _between(u[:, 0], *settings.sigma)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u
