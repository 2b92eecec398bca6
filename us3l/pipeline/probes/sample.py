"""The sample of a data set that probes see."""

from collections.abc import Sequence

import numpy as np

from us3l.data.files import Files
from us3l.data.store import Split, Store

IMAGES = 16  # of each split


def sample(store: Store, train: int = IMAGES, test: int = IMAGES) -> Store:
    """Return a data set of so many images of each split, at equal distances."""
    return Store(_sample(store.train, train), _sample(store.test, test), store.classes, store.sha256)


def sample_widths(widths: Sequence[float]) -> list[float]:
    """Return the narrowest, a middle and the widest of some widths."""
    rising = sorted(widths)
    return sorted({rising[0], rising[len(rising) // 2], rising[-1]})


def sample_rows(count: int, images: int = IMAGES) -> np.ndarray:
    """Return the numbers of so many of `count` images, from the first to the last, at equal distances."""
    return np.unique(np.linspace(0, count - 1, min(images, count)).astype(int))


def _sample(split: Split, count: int) -> Split:
    rows = sample_rows(len(split.labels), count)
    images = split.images
    chosen = Files(images.folder, images.table[rows]) if isinstance(images, Files) else np.asarray(images[rows])
    return Split(chosen, split.labels[rows])
