"""Views of uint8 images, made in batches on the device where the images are, each image with its own parameters.

Every operation does what torchvision's operation of that name does to a float image. Pixels are float32 in [0, 1]
between operations and never rounded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from us3l.data import color, draw, resample
from us3l.errors import UserError
from us3l.params.data import Affine, Augmentation, Blur, ColorJitter, Normalize, ResizedCrop, Solarize, TestView
from us3l.random import Purpose, uniform

CACHE = 2**19  # pixel values that a CPU's cache holds with their temporaries


def augment(
    images: Tensor,
    recipe: Augmentation,
    normalize: Normalize,
    *,
    seed: int,
    purpose: Purpose,
    epoch: int,
    samples: Tensor,
    view: int = 0,
) -> Tensor:
    """A random view of images: [B, H, W, C] uint8, normalized, [B, C, h, w] float32.

    What happens to an image depends on the recipe, seed, purpose, epoch, view and its number in samples: [B] int64,
    and not on the images beside it. Raises UserError when the blur is too wide for the images.
    """
    numbers = draw_numbers(recipe, seed=seed, purpose=purpose, epoch=epoch, samples=samples, view=view)
    return in_chunks(images, numbers, lambda some, u: finish(as_float(some), recipe, normalize, u))


def draw_numbers(
    recipe: Augmentation, *, seed: int, purpose: Purpose, epoch: int, samples: Tensor, view: int
) -> dict[str, Tensor]:
    """For each operation of a recipe, in order, the random numbers [B, numbers] that determine it."""
    counts = {name: operation.numbers for name, operation in OPERATIONS.items() if getattr(recipe, name)}
    numbers = uniform(seed, purpose, epoch, samples, view, sum(counts.values()))
    return dict(zip(counts, numbers.split(list(counts.values()), dim=1), strict=True))


def in_chunks(
    images: Tensor, numbers: dict[str, Tensor], view: Callable[[Tensor, dict[str, Tensor]], Tensor]
) -> Tensor:
    """Views [B, C, h, w] of images and their numbers, made of as many at a time as suits the device."""
    size = _images_at_once(images)
    chunks = (slice(start, start + size) for start in range(0, len(images), size))
    return torch.cat([view(images[chunk], {name: u[chunk] for name, u in numbers.items()}) for chunk in chunks])


def finish(x: Tensor, recipe: Augmentation, normalize: Normalize, numbers: dict[str, Tensor]) -> Tensor:
    """Apply those operations of a recipe that have numbers to x: [B, C, H, W] float32 in [0, 1], and normalize it."""
    for name, u in numbers.items():
        x = OPERATIONS[name].apply(x, getattr(recipe, name), u)
    return normalized(x, normalize)


def _images_at_once(images: Tensor) -> int:
    """All on a GPU; on a CPU as many as its cache holds, which takes two thirds of the time."""
    return len(images) if images.is_cuda else max(1, CACHE // images.shape[1:].numel())


def plain_view(images: Tensor, recipe: TestView, normalize: Normalize) -> Tensor:
    """The test view of images: [B, H, W, C] uint8, normalized, [B, C, h, w] float32."""
    x = as_float(images)
    if recipe.resize:
        x = resample.resize(x, recipe.resize, recipe.interpolation)
    if recipe.center_crop:
        x = resample.center_crop(x, recipe.center_crop)
    return normalized(x, normalize)


def as_float(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def normalized(x: Tensor, normalize: Normalize) -> Tensor:
    mean, std = (
        # A copy that blocks would make the host wait for the GPU.
        torch.tensor(values).to(x.device, non_blocking=True)[:, None, None]
        for values in (normalize.mean, normalize.std)
    )
    return (x - mean) / std


def _resized_crop(x: Tensor, recipe: ResizedCrop, u: Tensor) -> Tensor:
    return resample.resized_crop(x, draw.box(u, recipe, *x.shape[2:]), (recipe.size, recipe.size), recipe.interpolation)


def _affine(x: Tensor, recipe: Affine, u: Tensor) -> Tensor:
    return resample.affine(x, draw.motion(u, recipe, *x.shape[2:]))


def _color_jitter(x: Tensor, recipe: ColorJitter, u: Tensor) -> Tensor:
    return color.color_jitter(x, draw.jitter(u, recipe))


def _grayscale(x: Tensor, probability: float, u: Tensor) -> Tensor:
    return color.grayscale(x, u[:, 0] < probability)


def _blur(x: Tensor, recipe: Blur, u: Tensor) -> Tensor:
    height, width = x.shape[2:]
    if recipe.kernel_size // 2 >= min(height, width):
        raise UserError(f"blur.kernel_size is {recipe.kernel_size}, too wide for images of {height}x{width} pixels")
    chosen = (u[:, 0] < recipe.probability)[:, None, None, None]
    return x.lerp(resample.gaussian_blur(x, recipe.kernel_size, draw.sigma(u[:, 1:], recipe)), chosen.float())


def _flip(x: Tensor, probability: float, u: Tensor) -> Tensor:
    return x.lerp(x.flip(3), (u < probability)[:, :, None, None].float())


def _solarize(x: Tensor, recipe: Solarize, u: Tensor) -> Tensor:
    return color.solarize(x, recipe.threshold, u[:, 0] < recipe.probability)


class Operation(NamedTuple):
    """apply(x, settings, u): x [B, C, H, W] float32; settings from the recipe; u: [B, numbers] in [0, 1)."""

    numbers: int
    apply: Callable[[Tensor, Any, Tensor], Tensor]


# In the order they are applied, by their names in a recipe.
OPERATIONS = {
    "resized_crop": Operation(22, _resized_crop),
    "affine": Operation(4, _affine),
    "color_jitter": Operation(9, _color_jitter),
    "grayscale": Operation(1, _grayscale),
    "blur": Operation(2, _blur),
    "flip": Operation(1, _flip),
    "solarize": Operation(1, _solarize),
}
