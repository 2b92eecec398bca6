"""torchvision's colour operations on batches x: [B, C, H, W] float32 in [0, 1], each image with its own parameters.

C is 3, or 1 for grey images, which saturation, hue and grayscale leave as they are.
"""

import torch
from torch import Tensor

from us3l.data.draw import Jitter

CONTRAST, SATURATION = 1, 2


def color_jitter(x: Tensor, jitter: Jitter) -> Tensor:
    """Brightness, contrast, saturation and hue in each image's own order.

    The first three are blends, cheap enough to give every image a turn for each both before and after its hue; hue is
    dear and comes once. A turn that is not the image's has factor 1, which changes nothing.
    """
    slot = jitter.order.argsort(1)
    blends = slot[:, :3].argsort(1)
    early = slot.gather(1, blends) < slot[:, 3:]
    factors = jitter.factors.gather(1, blends)
    x = _blend_in_turn(x, blends, factors.where(early, 1))
    x = adjust_hue(x, jitter.factors[:, 3])
    return _blend_in_turn(x, blends, factors.where(~early, 1))


def _blend_in_turn(x: Tensor, operations: Tensor, factors: Tensor) -> Tensor:
    for operation, factor in zip(operations.T, factors.T, strict=True):
        x = blend(x, operation, factor)
    return x


def blend(x: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from (factor > 1) or towards black, its mean grey or its grey self: operation 0, 1 or 2."""
    grey = luma(x)
    mean = grey.mean((2, 3), keepdim=True)
    other = grey * _column(operation == SATURATION) + mean * _column(operation == CONTRAST)
    return other.lerp(x, _column(factor)).clamp_(0, 1)


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of the HSV colour, turn: [B] in [-0.5, 0.5] of a circle.

    Hue in sixths of a circle is 1 + G + B - R for the channels stretched to [0, 1], negative where B exceeds G.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    low, high = x.amin(1), x.amax(1)
    chroma = high - low
    hue = (green + blue - red + high - 2 * low).copysign(green - blue) / chroma.clamp(min=1e-9)
    hue += 6 * _column(turn)[:, 0]
    hue -= 6 * (hue / 6).floor()
    shares = [(hue - 3).abs_() - 1, 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()]
    return torch.stack([low.addcmul(chroma, share.clamp_(0, 1)) for share in shares], dim=1)


def grayscale(x: Tensor, chosen: Tensor) -> Tensor:
    """chosen: [B] bool, the images that lose their colour."""
    return x.lerp(luma(x), _column(chosen))


def solarize(x: Tensor, threshold: float, chosen: Tensor) -> Tensor:
    """Invert the values at or above the threshold of the chosen images, [B] bool."""
    return x.lerp(1 - x, ((x >= threshold) & chosen[:, None, None, None]).float())


def luma(x: Tensor) -> Tensor:
    """[B, 1, H, W], the grey of ITU-R 601-2."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _column(values: Tensor) -> Tensor:
    """[B] as float32 [B, 1, 1, 1]."""
    return values.float()[:, None, None, None]
