"""Augmented views and test views of uint8 images, made in batches on their device, each image with its own parameters.

Every operation does what torchvision's operation of that name does to a float image. Pixels are float32 in [0, 1]
between operations and are never rounded. The parameters of the whole batch are computed first; then the operations are
applied, on a CPU to a few images at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from us3l.data.augment import color, draw, resample
from us3l.data.augment.draw import Box, Motion
from us3l.params.dataset import Affine, Augmentation, Blur, ColorJitter, Normalize, ResizedCrop, Solarize, TestView
from us3l.utils.errors import UserError
from us3l.utils.philox import RandomKey, uniform

CACHE = 2**18  # pixel values that fit into a CPU's cache together with their temporaries

Parameters = dict[str, tuple[Tensor, ...]]  # by the operation's name; each tensor has one entry per image


def augment(
    images: Tensor,
    augmentation: Augmentation,
    normalize: Normalize,
    key: RandomKey,
    samples: Tensor,
    view: int | Tensor = 0,
) -> Tensor:
    """Return a random, normalized view [B, C, h, w] float32 of images: [B, H, W, C] uint8.

    A view depends on the augmentation, the key, the number of the view (one for all, or [B] int64) and the image's
    index, samples: [B] int64; never on the other images of the batch. Raises UserError when the blur is too wide for
    the images.
    """
    numbers = draw_numbers(augmentation, key, samples, view)
    parameters = compute_parameters(augmentation, numbers, *images.shape[1:3])
    planes = images.permute(0, 3, 1, 2)
    return in_chunks(planes, parameters, lambda some, drawn: finish(as_float(some), augmentation, normalize, drawn))


@torch.inference_mode()
def draw_numbers(augmentation: Augmentation, key: RandomKey, samples: Tensor, view: int | Tensor) -> dict[str, Tensor]:
    """Draw the random numbers [B, numbers] of each operation of an augmentation, in order."""
    counts = {name: operation.numbers for name, operation in OPERATIONS.items() if getattr(augmentation, name)}
    numbers = uniform(key, samples, view, sum(counts.values()))
    return dict(zip(counts, numbers.split(list(counts.values()), dim=1), strict=True))


@torch.inference_mode()
def compute_parameters(augmentation: Augmentation, numbers: dict[str, Tensor], height: int, width: int) -> Parameters:
    """Compute the parameters of the operations that `numbers` names, for images of this height and width.

    A crop flips, too, unless an affine map follows it: every other operation before the flip commutes with it.
    """
    before = after = height, width
    crop = augmentation.resized_crop if "resized_crop" in numbers else None
    parameters = {}
    for name, u in numbers.items():
        parameters[name] = OPERATIONS[name].draw(u, getattr(augmentation, name), *after)
        if crop and name == "resized_crop":
            after = crop.size, crop.size
    if crop:
        box = Box(*parameters["resized_crop"])
        if "flip" in numbers and "affine" not in numbers:
            box = draw.mirrored(box, *parameters.pop("flip"))
        parameters["resized_crop"] = resample.resampling(box, before, after, crop.interpolation)
    return parameters


def in_chunks(x: Tensor, parameters: Parameters, view: Callable[[Tensor, Parameters], Tensor]) -> Tensor:
    """Apply `view` to images x: [B, C, H, W] and their parameters, chunk by chunk; return [B, C, h, w].

    On a GPU all images are one chunk. On a CPU a chunk fits into the cache, and images with similar color jitter share
    one.
    """
    if x.is_cuda:
        return view(x, parameters)
    order = _chunk_order(parameters, len(x))
    views = None
    with torch.inference_mode():
        for some in order.chunk(max(1, round(x.numel() / CACHE))):
            drawn = {name: tuple(each.index_select(0, some) for each in of) for name, of in parameters.items()}
            made = view(x.index_select(0, some), drawn).numpy()
            views = np.empty((len(x), *made.shape[1:]), made.dtype) if views is None else views
            views[some.numpy()] = made  # four times as fast as torch's indexing
    return torch.from_numpy(views)


def _chunk_order(parameters: Parameters, count: int) -> Tensor:
    """Return the indices of the images in the order that `color_jitter_` needs."""
    if "color_jitter" not in parameters:
        return torch.arange(count)
    return color.JitterPasses(*parameters["color_jitter"]).before.argsort()


def finish(x: Tensor, augmentation: Augmentation, normalize: Normalize, parameters: Parameters) -> Tensor:
    """Apply the operations that have parameters to x: [B, C, H, W] float32 in [0, 1], then normalize it."""
    for name, drawn in parameters.items():
        x = OPERATIONS[name].apply(x, getattr(augmentation, name), *drawn)
    return normalize_(x, normalize)


def plain_view(images: Tensor, view: TestView, normalize: Normalize) -> Tensor:
    """Return the normalized test view [B, C, h, w] float32 of images: [B, H, W, C] uint8."""
    x = as_float(images.permute(0, 3, 1, 2))
    if view.resize:
        x = resample.resize(x, view.resize, view.interpolation)
    if view.center_crop:
        x = resample.center_crop(x, view.center_crop)
    return normalize_(x, normalize)


def as_float(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)


def normalize_(x: Tensor, normalize: Normalize) -> Tensor:
    # A blocking copy would make the host wait for the GPU.
    mean, std = torch.tensor([normalize.mean, normalize.std])[:, :, None, None].to(x.device, non_blocking=True)
    return x.sub_(mean).div_(std)


def _crop(x: Tensor, settings: ResizedCrop, *taps: Tensor) -> Tensor:
    return resample.resample(x, resample.Filter(*taps))


def _affine(x: Tensor, settings: Affine, *motion: Tensor) -> Tensor:
    return resample.affine(x, Motion(*motion))


def _draw_color_jitter(u: Tensor, settings: ColorJitter, height: int, width: int) -> color.JitterPasses:
    return color.jitter_passes(draw.jitter(u, settings))


def _color_jitter(x: Tensor, settings: ColorJitter, *passes: Tensor) -> Tensor:
    return color.color_jitter_(x, color.JitterPasses(*passes))


def _draw_chosen(u: Tensor, probability: float, height: int, width: int) -> tuple[Tensor]:
    return (u[:, 0] < probability,)


def _grayscale(x: Tensor, probability: float, chosen: Tensor) -> Tensor:
    return color.grayscale_(x, chosen)


def _draw_blur(u: Tensor, settings: Blur, height: int, width: int) -> tuple[Tensor, Tensor]:
    if settings.kernel_size // 2 >= min(height, width):
        raise UserError(f"blur.kernel_size is {settings.kernel_size}, too wide for images of {height}x{width} pixels")
    return u[:, 0] < settings.probability, draw.sigma(u[:, 1:], settings)


def _blur(x: Tensor, settings: Blur, chosen: Tensor, sigma: Tensor) -> Tensor:
    return x.lerp(resample.gaussian_blur(x, settings.kernel_size, sigma), chosen[:, None, None, None].float())


def _flip(x: Tensor, probability: float, chosen: Tensor) -> Tensor:
    return x.lerp(x.flip(3), chosen[:, None, None, None].float())


def _draw_solarize(u: Tensor, settings: Solarize, height: int, width: int) -> tuple[Tensor]:
    return _draw_chosen(u, settings.probability, height, width)


def _solarize(x: Tensor, settings: Solarize, chosen: Tensor) -> Tensor:
    return color.solarize(x, settings.threshold, chosen)


class Operation(NamedTuple):
    """An operation: `draw(u, settings, height, width)` returns the parameters of `apply(x, settings, *parameters)`.

    u: [B, numbers] in [0, 1); settings: the operation's value in the augmentation; x: [B, C, height, width] float32,
    which apply may modify in place.
    """

    numbers: int
    draw: Callable[[Tensor, Any, int, int], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]


# By their names in an augmentation, in the order in which they are applied.
OPERATIONS = {
    "resized_crop": Operation(22, draw.box, _crop),
    "affine": Operation(4, draw.motion, _affine),
    "color_jitter": Operation(9, _draw_color_jitter, _color_jitter),
    "grayscale": Operation(1, _draw_chosen, _grayscale),
    "blur": Operation(2, _draw_blur, _blur),
    "flip": Operation(1, _draw_chosen, _flip),
    "solarize": Operation(1, _draw_solarize, _solarize),
}
