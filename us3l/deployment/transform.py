"""From a picture to the input of a network, as the data set was prepared and the network evaluated."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from us3l.data.augment.views import plain_view
from us3l.deployment.config import Config
from us3l.params.dataset import Normalize
from us3l.utils.errors import UserError


def to_image(picture: Image.Image, config: Config) -> Tensor:
    """Return [C, H, W] float32 in [0, 1], not normalized.

    Raises UserError where the config does not say how the network saw its test images.
    """
    if config.test_view is None:
        what = "was never evaluated by a classifier, so nothing says how to resize its images"
        raise UserError(f"{config.architecture} at width {config.width:g} {what}; resize them yourself")
    picture = picture.convert("L" if config.in_channels == 1 else "RGB")
    if config.prepared_size:
        picture = square(picture, config.prepared_size)
    pixels = torch.from_numpy(np.array(picture).reshape(1, picture.height, picture.width, config.in_channels))
    return plain_view(pixels, config.test_view, no_normalization(config.in_channels))[0]


def no_normalization(channels: int) -> Normalize:
    """Return the normalization that leaves pixels as they are: a deployed network does its own."""
    return Normalize(mean=[0.0] * channels, std=[1.0] * channels)


def square(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` pixels, and crop the centre, as torchvision does to pictures of Pillow's."""
    width, height = picture.size
    shorter = min(width, height)
    if shorter != size:
        picture = picture.resize((size * width // shorter, size * height // shorter), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in picture.size)
    return picture.crop((left, top, left + size, top + size))
