"""Views of uint8 images, made in batches on the device where the images are, each image with its own parameters.

Every operation does what torchvision's operation of that name does to a float image. Pixels are float32 in [0, 1]
between operations and never rounded. Random numbers become parameters for the whole batch first; pixels come after, on
a CPU a few images at a time.
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

CACHE = 2**18  # pixel values that a CPU's cache holds with their temporaries

Parameters = dict[str, tuple[Tensor, ...]]  # of the operations by name, one entry per image in each tensor


def augment(
    images: Tensor,
    recipe: Augmentation,
    normalize: Normalize,
    key: RandomKey,
    samples: Tensor,
    view: int | Tensor = 0,
) -> Tensor:
    """A random view of images: [B, H, W, C] uint8, normalized, [B, C, h, w] float32.

    What happens to an image depends on the recipe, the key, its view (one for all, or [B] int64) and its number in
    samples: [B] int64, and not on the images beside it. Raises UserError when the blur is too wide for them.
    """
    numbers = draw_numbers(recipe, key, samples, view)
    parameters = determine(recipe, numbers, *images.shape[1:3])
    planes = images.permute(0, 3, 1, 2)
    return in_chunks(planes, parameters, lambda some, drawn: finish(as_float(some), recipe, normalize, drawn))


@torch.inference_mode()
def draw_numbers(recipe: Augmentation, key: RandomKey, samples: Tensor, view: int | Tensor) -> dict[str, Tensor]:
    """For each operation of a recipe, in order, the random numbers [B, numbers] that determine it."""
    counts = {name: operation.numbers for name, operation in OPERATIONS.items() if getattr(recipe, name)}
    numbers = uniform(key, samples, view, sum(counts.values()))
    return dict(zip(counts, numbers.split(list(counts.values()), dim=1), strict=True))


@torch.inference_mode()
def determine(recipe: Augmentation, numbers: dict[str, Tensor], height: int, width: int) -> Parameters:
    """The parameters of those operations of a recipe that have numbers, for images of this size.

    A crop flips, too, unless an affine map is in between: nothing else that is before a flip can tell left from right.
    """
    before = after = height, width
    parameters = {}
    for name, u in numbers.items():
        parameters[name] = OPERATIONS[name].draw(u, getattr(recipe, name), *after)
        if name == "resized_crop":
            after = recipe.resized_crop.size, recipe.resized_crop.size
    if "resized_crop" in numbers:
        box = Box(*parameters["resized_crop"])
        if "flip" in numbers and "affine" not in numbers:
            box = draw.mirrored(box, *parameters.pop("flip"))
        parameters["resized_crop"] = resample.resampling(box, before, after, recipe.resized_crop.interpolation)
    return parameters


def in_chunks(x: Tensor, parameters: Parameters, view: Callable[[Tensor, Parameters], Tensor]) -> Tensor:
    """Views [B, C, h, w] of images x: [B, C, H, W] with their parameters: on a GPU of all at once.

    On a CPU as many are made at a time as its cache holds, and those together whose color jitter is alike.
    """
    if x.is_cuda:
        return view(x, parameters)
    line = _alike(parameters, len(x))
    views = None
    with torch.inference_mode():
        for some in line.chunk(max(1, round(x.numel() / CACHE))):
            drawn = {name: tuple(each.index_select(0, some) for each in of) for name, of in parameters.items()}
            made = view(x.index_select(0, some), drawn).numpy()
            views = np.empty((len(x), *made.shape[1:]), made.dtype) if views is None else views
            views[some.numpy()] = made  # in a quarter of the time that torch takes for it
    return torch.from_numpy(views)


def _alike(parameters: Parameters, count: int) -> Tensor:
    """The images in the order that `color_jitter_` wants."""
    if "color_jitter" not in parameters:
        return torch.arange(count)
    return color.JitterPasses(*parameters["color_jitter"]).before.argsort()


def finish(x: Tensor, recipe: Augmentation, normalize: Normalize, parameters: Parameters) -> Tensor:
    """Apply those operations of a recipe that have parameters to x: [B, C, H, W] float32 in [0, 1]; normalize it."""
    for name, drawn in parameters.items():
        x = OPERATIONS[name].apply(x, getattr(recipe, name), *drawn)
    return normalize_(x, normalize)


def plain_view(images: Tensor, recipe: TestView, normalize: Normalize) -> Tensor:
    """The test view of images: [B, H, W, C] uint8, normalized, [B, C, h, w] float32."""
    x = as_float(images.permute(0, 3, 1, 2))
    if recipe.resize:
        x = resample.resize(x, recipe.resize, recipe.interpolation)
    if recipe.center_crop:
        x = resample.center_crop(x, recipe.center_crop)
    return normalize_(x, normalize)


def as_float(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)


def normalize_(x: Tensor, normalize: Normalize) -> Tensor:
    # A copy that blocks would make the host wait for the GPU.
    mean, std = torch.tensor([normalize.mean, normalize.std])[:, :, None, None].to(x.device, non_blocking=True)
    return x.sub_(mean).div_(std)


def _crop(x: Tensor, recipe: ResizedCrop, *taps: Tensor) -> Tensor:
    return resample.resample(x, resample.Filter(*taps))


def _affine(x: Tensor, recipe: Affine, *motion: Tensor) -> Tensor:
    return resample.affine(x, Motion(*motion))


def _draw_color_jitter(u: Tensor, recipe: ColorJitter, height: int, width: int) -> color.JitterPasses:
    return color.turns(draw.jitter(u, recipe))


def _color_jitter(x: Tensor, recipe: ColorJitter, *turns: Tensor) -> Tensor:
    return color.color_jitter_(x, color.JitterPasses(*turns))


def _chosen(u: Tensor, probability: float, height: int, width: int) -> tuple[Tensor]:
    return (u[:, 0] < probability,)


def _grayscale(x: Tensor, probability: float, chosen: Tensor) -> Tensor:
    return color.grayscale_(x, chosen)


def _draw_blur(u: Tensor, recipe: Blur, height: int, width: int) -> tuple[Tensor, Tensor]:
    if recipe.kernel_size // 2 >= min(height, width):
        raise UserError(f"blur.kernel_size is {recipe.kernel_size}, too wide for images of {height}x{width} pixels")
    return u[:, 0] < recipe.probability, draw.sigma(u[:, 1:], recipe)


def _blur(x: Tensor, recipe: Blur, chosen: Tensor, sigma: Tensor) -> Tensor:
    return x.lerp(resample.gaussian_blur(x, recipe.kernel_size, sigma), chosen[:, None, None, None].float())


def _flip(x: Tensor, probability: float, chosen: Tensor) -> Tensor:
    return x.lerp(x.flip(3), chosen[:, None, None, None].float())


def _draw_solarize(u: Tensor, recipe: Solarize, height: int, width: int) -> tuple[Tensor]:
    return _chosen(u, recipe.probability, height, width)


def _solarize(x: Tensor, recipe: Solarize, chosen: Tensor) -> Tensor:
    return color.solarize(x, recipe.threshold, chosen)


class Operation(NamedTuple):
    """apply(x, settings, *parameters) with the parameters that draw(u, settings, height, width) gives.

    u: [B, numbers] in [0, 1); settings from the recipe; x: [B, C, height, width] float32, which apply may write to.
    """

    numbers: int
    draw: Callable[[Tensor, Any, int, int], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]


# In the order they are applied, by their names in a recipe.
OPERATIONS = {
    "resized_crop": Operation(22, draw.box, _crop),
    "affine": Operation(4, draw.motion, _affine),
    "color_jitter": Operation(9, _draw_color_jitter, _color_jitter),
    "grayscale": Operation(1, _chosen, _grayscale),
    "blur": Operation(2, _draw_blur, _blur),
    "flip": Operation(1, _chosen, _flip),
    "solarize": Operation(1, _draw_solarize, _solarize),
}
