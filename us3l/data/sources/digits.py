"""The handwritten digits of scikit-learn."""

import numpy as np

from us3l.data.store import DatasetSource, SplitSource
from us3l.params.dataset import Digits
from us3l.utils.errors import UserError


def read_digits(source: Digits) -> DatasetSource:
    """Read the 8x8 images, scaling their values 0..16 to 0..255."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    everything = np.arange(len(images))
    try:
        train, test = train_test_split(
            everything, test_size=source.test_fraction, stratify=digits.target, random_state=0
        )
    except ValueError as error:
        raise UserError(f"test_fraction {source.test_fraction} of {len(images)} digits: {error}") from None
    return DatasetSource(
        classes=tuple(str(name) for name in digits.target_names),
        shape=(8, 8, 1),
        train=SplitSource(digits.target[train], images[train]),
        test=SplitSource(digits.target[test], images[test]),
    )
