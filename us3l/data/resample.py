"""Crops, resizes, blurs and affine maps of image batches x: [B, C, H, W] float32, each image with its own parameters.

A separable filter is one matrix product along the columns and one along the rows, with a matrix for each image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.data.draw import Box, Motion


def resized_crop(x: Tensor, box: Box, size: tuple[int, int], interpolation: str) -> Tensor:
    """torchvision's resized_crop with antialiasing; what a bicubic filter overshoots is clamped to [0, 1]."""
    rows = resampling(box.top, box.height, x.shape[2], size[0], interpolation)
    columns = resampling(box.left, box.width, x.shape[3], size[1], interpolation)
    return _separable(x, rows, columns).clamp_(0, 1)


def resize(x: Tensor, size: int, interpolation: str) -> Tensor:
    """torchvision's Resize: the shorter side becomes `size`, the other one in proportion, rounded down."""
    height, width = x.shape[2:]
    shorter = min(height, width)
    whole = Box(*(x.new_full((len(x),), value, dtype=torch.int64) for value in (0, 0, height, width)))
    return resized_crop(x, whole, (size * height // shorter, size * width // shorter), interpolation)


def center_crop(x: Tensor, size: int) -> Tensor:
    """torchvision's CenterCrop; a larger size is filled up with zeros."""
    (top, bottom), (left, right) = (margins(side, size) for side in x.shape[2:])
    return F.pad(x, (-left, -right, -top, -bottom))


def margins(side: int, size: int) -> tuple[int, int]:
    """What to cut off before and after a side for its centre of `size`; less than nothing is filled up."""
    before = round((side - size) / 2) if side > size else -((size - side) // 2)
    return before, side - size - before


def resampling(start: Tensor, length: Tensor, before: int, after: int, interpolation: str) -> Tensor:
    """Matrices [B, after, before] that resample the pixels start ... start + length - 1 of an axis.

    The filter is as wide as a pixel of the coarser side, which is antialiasing; pixels outside the box get no weight
    and each row sums to 1 (Pillow's resize, torch's interpolate with antialias=True).
    """
    scale = (length.float() / after)[:, None, None]
    pixel = torch.arange(before, device=start.device) - start[:, None, None]
    center = (torch.arange(after, device=start.device)[:, None] + 0.5) * scale
    weights = FILTERS[interpolation]((pixel + 0.5 - center) / scale.clamp(min=1))
    weights = weights * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -0.5."""
    near, far = x.abs().clamp(max=1), x.abs().clamp(1, 2)  # each piece is 0 where the other one holds
    return (1.5 * near - 2.5) * near * near + ((2.5 - 0.5 * far) * far - 4) * far + 3


FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def gaussian_blur(x: Tensor, kernel_size: int, sigma: Tensor) -> Tensor:
    """torchvision's gaussian_blur; sigma: [B] pixels. The edges are reflected, so kernel_size // 2 < H and W."""
    offset = torch.arange(-(kernel_size // 2), kernel_size // 2 + 1, device=x.device)
    weights = (-0.5 * (offset / sigma[:, None]) ** 2).softmax(1).float()
    return _separable(x, *(_convolution(weights, offset, side) for side in x.shape[2:]))


def _convolution(weights: Tensor, offset: Tensor, side: int) -> Tensor:
    """Matrices [B, side, side] that convolve an axis with reflected ends; weights: [B, kernel_size]."""
    pixel = torch.arange(side, device=weights.device)
    source = (side - 1) - ((side - 1) - (pixel[:, None] + offset).abs()).abs()
    return torch.einsum("bk,okp->bop", weights, (source[:, :, None] == pixel).float())


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows: [B, h, H] and columns: [B, w, W] give [B, C, h, w]."""
    across = x.flatten(1, 2).bmm(columns.mT).unflatten(1, x.shape[1:3])
    return rows[:, None] @ across


def affine(x: Tensor, motion: Motion) -> Tensor:
    """torchvision's affine about the centre, bilinear; what lies outside the image is 0."""
    height, width = x.shape[2:]
    radians = motion.angle.deg2rad()
    cos, sin = radians.cos() / motion.zoom, radians.sin() / motion.zoom
    right, down = 2 * motion.right / width, 2 * motion.down / height  # grid_sample's image spans [-1, 1]
    across, along = sin * height / width, -sin * width / height
    inverse = torch.stack([cos, across, -cos * right - across * down, along, cos, -along * right - cos * down], dim=1)
    grid = F.affine_grid(inverse.view(-1, 2, 3).float(), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
