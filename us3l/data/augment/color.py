"""torchvision's colour operations on batches x: [B, C, H, W] float32 in [0, 1], each image with its own parameters.

C is 3, or 1 for grey images, which saturation, hue and grayscale leave unchanged.
"""

from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor

from us3l.data.augment.draw import Jitter

CONTRAST, SATURATION, HUE = 1, 2, 3


class JitterPasses(NamedTuple):
    """Color jitter of B images in seven passes: three blends, the hue, and the same three blends again.

    settings: [B, 7, 3, 1, 1, 1] float32, a `mixture` for each blend, and `hue_distances` for the hue between them. Of
    the two passes of a blend, one leaves the image unchanged. before: [B], the number of blends before the hue, -1 for
    images that no pass changes.
    """

    settings: Tensor
    before: Tensor


def jitter_passes(jitter: Jitter) -> JitterPasses:
    """Arrange each image's four operations, in their own order, as seven passes common to all images."""
    slot = jitter.order.argsort(1)
    blends, before = slot[:, :HUE].argsort(1), slot[:, HUE:]
    factors, hue = jitter.factors.gather(1, blends), jitter.factors[:, HUE]
    early = torch.arange(HUE, device=hue.device) < before
    first, last = (mixture(blends, factors.where(now, 1)) for now in (early, ~early))
    idle = (factors == 1).all(1) & (hue == 0)
    settings = torch.cat([first, hue_distances(hue)[:, None], last], dim=1)
    return JitterPasses(settings[..., None, None, None], before[:, 0].where(~idle, -1))


def color_jitter_(x: Tensor, passes: JitterPasses) -> Tensor:
    """Apply brightness, contrast, saturation and hue in each image's own order.

    On a CPU the images must be in ascending order of `before`: a pass then touches only the slice that it changes. On a
    GPU every pass touches all images, since counting them would make the host wait.
    """
    for number, some in enumerate(_slices(passes.before)):
        if len(x[some]):
            operation = adjust_hue_ if number == HUE else blend_
            operation(x[some], passes.settings[some, number])
    return x


def _slices(before: Tensor) -> list[slice]:
    """Return the slice of images that each pass changes."""
    if before.is_cuda:
        return [slice(None)] * 7
    ascending = before.tolist()
    first, *bounds = (bisect_left(ascending, blends) for blends in range(4))
    return [slice(bound, None) for bound in (*bounds, first)] + [slice(first, bound) for bound in bounds]


def mixture(operation: Tensor, factor: Tensor) -> Tensor:
    """Return the weights [..., 3] of an image, its grey version and its mean grey in operation 0, 1 or 2: [...].

    Brightness, contrast and saturation move an image away from (factor > 1) or towards black, its mean grey or its grey
    version.
    """
    other = 1 - factor
    return torch.stack([factor, other * (operation == SATURATION), other * (operation == CONTRAST)], dim=-1).float()


def blend_(x: Tensor, mixture: Tensor) -> Tensor:
    """Blend x: [B, C, H, W] with its grey version and its mean grey; mixture: [B, 3, 1, 1, 1]."""
    own, of_grey, of_mean = mixture.unbind(1)
    grey = luma(x)
    other = (grey * of_grey).add_(grey.mean((2, 3), keepdim=True).mul_(of_mean))
    return torch.addcmul(other, x, own, out=x).clamp_(0, 1)


def hue_distances(turn: Tensor) -> Tensor:
    """Return the distances [B, 3] of a hue turn from red, green and blue, in sixths of the colour circle, -3 to 3.

    turn: [B] in [-0.5, 0.5] of the circle.
    """
    channels = torch.arange(0, 6, 2, device=turn.device)
    return ((6 * turn[:, None] - channels + 3).remainder(6) - 3).float()


def adjust_hue_(x: Tensor, distances: Tensor) -> Tensor:
    """Turn the hue of the HSV colour.

    Hue in sixths of a circle is 1 + G + B - R for the channels stretched to [0, 1], negative where B exceeds G. A
    channel is high within one sixth of its own hue and low beyond two.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    low, high = red.minimum(green).minimum(blue), red.maximum(green).maximum(blue)
    chroma = (high - low).clamp_(min=1e-9)
    hue = (high - red).add_(green).add_(blue).sub_(low, alpha=2).copysign_(green - blue).div_(chroma)
    torch.add(hue, distances.flatten(2, 3), out=x).abs_().sub_(3).abs_().clamp_(1, 2)
    return torch.addcmul(low.sub_(chroma), x, chroma, out=x)


def grayscale_(x: Tensor, chosen: Tensor) -> Tensor:
    """Turn the chosen images, [B] bool, grey."""
    return x.lerp_(luma(x), _column(chosen))


def solarize(x: Tensor, threshold: float, chosen: Tensor) -> Tensor:
    """Invert the values at or above the threshold in the chosen images, [B] bool."""
    return x.lerp(1 - x, ((x >= threshold) & chosen[:, None, None, None]).float())


def luma(x: Tensor) -> Tensor:
    """Return the luma of ITU-R 601-2, [B, 1, H, W]."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _column(values: Tensor) -> Tensor:
    """Reshape [B] to [B, 1, 1, 1] float32."""
    return values.float()[:, None, None, None]
