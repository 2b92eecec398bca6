"""Parameters of augmentations, distributed as torchvision's, from independent uniform numbers u: [B, n] in [0, 1).

What is returned has one entry per image. The n that a function takes is the number of columns it reads.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from us3l.params.dataset import Affine, Blur, ColorJitter, ResizedCrop

TRIES = 10


class Box(NamedTuple):
    """Whole pixels, each [B] int64. A box of negative width is read from its right edge, `left`, to the left."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class Motion(NamedTuple):
    """angle in degrees (clockwise), shift right and down in whole pixels, zoom: each [B] float64."""

    angle: Tensor
    right: Tensor
    down: Tensor
    zoom: Tensor


class Jitter(NamedTuple):
    """order: [B, 4] int64, the operations in the order they are applied; factors: [B, 4] float64 of operation 0 ... 3.

    The operations are brightness, contrast, saturation and hue; factors of 1, 1, 1 and 0 leave an image as it is.
    """

    order: Tensor
    factors: Tensor


def box(u: Tensor, recipe: ResizedCrop, height: Tensor | int, width: Tensor | int) -> Box:
    """RandomResizedCrop.get_params: the first of ten tries that fits into the image, else a centre crop. n = 22.

    Height and width of the images are one for all, or [B, 1] int64.
    """
    area = height * width * _between(u[:, :TRIES], *recipe.scale)
    aspect = _between(u[:, TRIES : 2 * TRIES], *map(math.log, recipe.ratio)).exp()
    widths, heights = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    some, first = fits.any(1, keepdim=True), fits.int().argmax(1, keepdim=True)
    height, width = (torch.zeros_like(first) + side for side in (height, width))
    h, w = (
        torch.where(some, tries.gather(1, first), centre)
        for tries, centre in zip((heights, widths), _centre(recipe, height, width), strict=True)
    )
    top, left = (u[:, -2:-1] * (height - h + 1)).long(), (u[:, -1:] * (width - w + 1)).long()
    places = (torch.where(some, top, (height - h) // 2), torch.where(some, left, (width - w) // 2))
    return Box(*(each[:, 0] for each in (*places, h, w)))


def _centre(recipe: ResizedCrop, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Height and width of the largest box in each image whose aspect ratio the recipe allows."""
    narrowest, widest = recipe.ratio
    tallest, broadest = (width.double() / narrowest).round().long(), (height.double() * widest).round().long()
    return height.minimum(tallest), width.minimum(broadest)


def mirrored(box: Box, chosen: Tensor) -> Box:
    """The boxes, those of the chosen images [B] read from right to left."""
    return box._replace(left=box.left + box.width * chosen, width=box.width * (1 - 2 * chosen.long()))


def motion(u: Tensor, recipe: Affine, height: int, width: int) -> Motion:
    """RandomAffine.get_params. n = 4."""
    angle = _between(u[:, 0], -recipe.degrees, recipe.degrees)
    right, down = (
        _between(u[:, column], -recipe.translate * side, recipe.translate * side).round()
        for column, side in ((1, width), (2, height))
    )
    return Motion(angle, right, down, _between(u[:, 3], *recipe.scale))


def jitter(u: Tensor, recipe: ColorJitter) -> Jitter:
    """ColorJitter.get_params within RandomApply; images that are not chosen get factors that do nothing. n = 9."""
    strengths = (recipe.brightness, recipe.contrast, recipe.saturation)
    factors = [_between(u[:, 5 + i], max(0.0, 1 - s), 1 + s) for i, s in enumerate(strengths)]
    factors.append(_between(u[:, 8], -recipe.hue, recipe.hue))
    chosen = u[:, 0] < recipe.probability
    applied = [torch.where(chosen, factor, idle) for factor, idle in zip(factors, (1.0, 1.0, 1.0, 0.0), strict=True)]
    return Jitter(u[:, 1:5].argsort(stable=True, dim=1), torch.stack(applied, 1))


def sigma(u: Tensor, recipe: Blur) -> Tensor:
    """GaussianBlur.get_params, [B] float64. n = 1."""
    return _between(u[:, 0], *recipe.sigma)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u
