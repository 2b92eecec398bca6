"""Image files that nobody vouches for, opened without decoding more pixels than an honest one has."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from us3l.utils.errors import UserError

MOST_BYTES = 2**26  # of a file; the largest of ImageNet has 15 MB
MOST_PIXELS = 2**26  # as many as cameras of 64 megapixels take; ImageNet's have 0.2 million, the largest 40
MOST_ELONGATED = 200  # longer by shorter side: to resize the shorter side multiplies the longer one, too
MOST_SCANS = 200  # of a JPEG, each a pass over all pixels; progressive ones have about 10
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of the others some start a program
# Pillow only warns of images beyond its own limit, in a line more.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
START_OF_SCAN = b"\xff\xda"


@contextmanager
def open_picture(path: Path, content: bytes) -> Iterator[Image.Image]:
    """Open an image to be decoded in the block. Raises UserError where it, or its decoding, is not as it should be.

    path: where the content is from.
    """
    try:
        if content.count(START_OF_SCAN) > MOST_SCANS and content.startswith(b"\xff\xd8"):
            raise ValueError(f"more than {MOST_SCANS} scans")
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            shorter, longer = sorted(image.size)
            if shorter * longer > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MOST_PIXELS}")
            if longer > MOST_ELONGATED * shorter:
                raise ValueError(f"of {image.width}x{image.height} pixels, a side is over {MOST_ELONGATED}x the other")
            yield image
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a readable image (none of {', '.join(FORMATS)}); replace or remove it") from None
    except Exception as error:  # Pillow's decoders raise many kinds of exceptions
        what = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable image ({what}); replace or remove it") from None
