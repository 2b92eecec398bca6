"""Crops, resizes, blurs and affine maps of image batches x: [B, C, H, W] float32, each image with its own parameters.

A separable filter computes a pixel as a weighted sum of a few pixels: first along its column, then along its row.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.data.augment.draw import Box, Motion


class Filter(NamedTuple):
    """Source rows and columns of each row and column of the result, and their weights: [B, taps, h], [B, taps, w]."""

    rows: Tensor
    row_weights: Tensor
    columns: Tensor
    column_weights: Tensor


def resampling(box: Box, before: tuple[int, int], after: tuple[int, int], interpolation: str) -> Filter:
    """Return the filter of torchvision's resized_crop with antialiasing; before and after: (height, width)."""
    rows = _taps(box.top, box.height, before[0], after[0], interpolation)
    return Filter(*rows, *_taps(box.left, box.width, before[1], after[1], interpolation))


def resize(x: Tensor, size: int, interpolation: str) -> Tensor:
    """Resize as torchvision's Resize: the shorter side becomes `size`, the other is in proportion, rounded down."""
    height, width = x.shape[2:]
    shorter = min(height, width)
    whole = Box(*(x.new_full((len(x),), value, dtype=torch.int64) for value in (0, 0, height, width)))
    after = (size * height // shorter, size * width // shorter)
    return resample(x, resampling(whole, (height, width), after, interpolation))


def resample(x: Tensor, resampling: Filter) -> Tensor:
    """Apply a filter; the overshoot of a bicubic one is clamped to [0, 1]."""
    return _filtered(x, resampling).clamp_(0, 1)


def center_crop(x: Tensor, size: int) -> Tensor:
    """Crop as torchvision's CenterCrop: a side shorter than `size` is padded with zeros."""
    (top, bottom), (left, right) = (margins(side, size) for side in x.shape[2:])
    return F.pad(x, (-left, -right, -top, -bottom))


def margins(side: int, size: int) -> tuple[int, int]:
    """Return the pixels to cut off before and after a side for its centre of `size`; negative ones are padding."""
    before = round((side - size) / 2) if side > size else -((size - side) // 2)
    return before, side - size - before


def _taps(start: Tensor, length: Tensor, before: int, after: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Compute source pixels and weights that resample start ... start + length - 1 of an axis, [B, taps, after] each.

    start and length: [B]; a negative length is read from the right. The filter is as wide as a pixel of the coarser
    side, which is antialiasing; pixels outside the box get no weight and weights sum to 1 (Pillow's resize, torch's
    interpolate with antialias=True).
    """
    weigh, radius = FILTERS[interpolation]
    start, length = start[:, None, None].float(), length[:, None, None].float()
    scale = length / after
    wide = scale.abs().clamp_(min=1)
    center = (torch.arange(after, device=start.device) + 0.5) * scale - 0.5
    taps = torch.arange(math.ceil(2 * radius * max(1, before / after)), device=start.device)[:, None]
    pixel = (center - radius * wide + 1).floor_() + taps
    inside = pixel.clamp(length.clamp(max=0), length.clamp(min=0) - 1)
    weight = weigh((pixel - center).div_(wide)).masked_fill_(pixel != inside, 0)
    return inside.add_(start).long(), weight.div_(weight.sum(1, keepdim=True))


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Evaluate Keys' cubic convolution kernel with a = -0.5."""
    near, far = x.abs().clamp(max=1), x.abs().clamp(1, 2)  # each piece is 0 where the other one applies
    return (1.5 * near - 2.5) * near * near + ((2.5 - 0.5 * far) * far - 4) * far + 3


FILTERS = {"bilinear": (_triangle, 1), "bicubic": (_cubic, 2)}  # kernel, and the radius beyond which it is 0


def gaussian_blur(x: Tensor, kernel_size: int, sigma: Tensor) -> Tensor:
    """Blur as torchvision's gaussian_blur; sigma: [B] pixels. Edges are reflected, so kernel_size // 2 < H and W."""
    offset = torch.arange(-(kernel_size // 2), kernel_size // 2 + 1, device=x.device)
    weights = (-0.5 * (offset / sigma[:, None]) ** 2).softmax(1).float()
    rows, columns = (_convolution(weights, offset, side) for side in x.shape[2:])
    return _filtered(x, Filter(*rows, *columns))


def _convolution(weights: Tensor, offset: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return source pixels and weights of a convolution of an axis with reflected ends; weights: [B, kernel_size]."""
    pixel = torch.arange(side, device=weights.device)
    source = (side - 1) - ((side - 1) - (pixel + offset[:, None]).abs()).abs()
    return torch.broadcast_tensors(source, weights[:, :, None])


def _filtered(x: Tensor, f: Filter) -> Tensor:
    """Filter [B, C, H, W] to [B, C, h, w]: rows by an embedding bag, columns by a batched matrix product."""
    batch, channels, height, width = x.shape
    first = torch.arange(0, batch * channels * height, height, device=x.device).view(batch, channels, 1, 1)
    rows, weights = f.rows.mT[:, None] + first, f.row_weights.mT[:, None].expand(-1, channels, -1, -1)
    rows, weights, pixels = rows.flatten(0, 2), weights.flatten(0, 2), x.flatten(0, 2)
    down = F.embedding_bag(rows, pixels, per_sample_weights=weights, mode="sum").view(batch, -1, width)
    columns = x.new_zeros(batch, width, f.columns.shape[2]).scatter_add_(1, f.columns, f.column_weights)
    return down.bmm(columns).unflatten(1, (channels, -1))


def affine(x: Tensor, motion: Motion) -> Tensor:
    """Transform as torchvision's affine about the centre, bilinear; pixels from outside the image are 0."""
    height, width = x.shape[2:]
    radians = motion.angle.deg2rad()
    cos, sin = radians.cos() / motion.zoom, radians.sin() / motion.zoom
    right, down = 2 * motion.right / width, 2 * motion.down / height  # grid_sample's image spans [-1, 1]
    across, along = sin * height / width, -sin * width / height
    inverse = torch.stack([cos, across, -cos * right - across * down, along, cos, -along * right - cos * down], dim=1)
    grid = F.affine_grid(inverse.view(-1, 2, 3).float(), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
