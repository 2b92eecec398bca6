"""The predicted class of each test image, as a record keeps it: an accuracy can then be checked image by image.

Nothing here needs PyTorch.
"""

import base64
import zlib
from typing import Any

import numpy as np

from us3l.utils.errors import UserError

DTYPE = np.dtype("<u2")


def encode(classes: np.ndarray) -> str:
    """Return classes [N], from 0 to 65535, as text: base64 of the compressed array of little-endian uint16.

    Raises ValueError for a number that takes more bits.
    """
    if classes.min() < 0 or classes.max() > np.iinfo(DTYPE).max:
        raise ValueError(f"classes from {classes.min()} to {classes.max()} do not fit into 16 bits")
    return base64.b64encode(zlib.compress(classes.astype(DTYPE).tobytes(), 9)).decode()


def decode(text: Any, count: int) -> np.ndarray:
    """Return the classes [count] that `encode` made a text of; whatever the text is, no more than that is unpacked.

    Raises UserError for any other text.
    """
    size = count * DTYPE.itemsize
    longest = 4 * (size + size // 1000 + 64) // 3  # zlib adds less than this to what it cannot compress
    if not isinstance(text, str) or len(text) > longest:
        raise UserError(f"no text of at most {longest} characters, as {count} classes take")
    unpacking = zlib.decompressobj()
    try:
        packed = base64.b64decode(text, validate=True)
        content = unpacking.decompress(packed, size + 1)
    except (ValueError, zlib.error) as error:
        raise UserError(f"not base64 of a compressed array ({error})") from None
    is_whole = unpacking.eof and not unpacking.unused_data and base64.b64encode(packed).decode() == text
    if len(content) != size or not is_whole:
        raise UserError(f"not the classes of exactly {count} images")
    return np.frombuffer(content, DTYPE)
