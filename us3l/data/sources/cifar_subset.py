"""A few classes and images of a data set: the same ones in the same order, however the data set is ordered."""

from hashlib import sha256

import numpy as np

from us3l.data.store import DatasetSource, SplitSource
from us3l.params.dataset import CifarSubset


def take_subset(contents: DatasetSource, subset: CifarSubset) -> DatasetSource:
    """Take the first classes by name, and of each the images whose pixels have the smallest SHA-256, sorted by it.

    Raises ValueError, with both numbers, where there are fewer classes or images than the subset asks for.
    """
    if len(contents.classes) < subset.classes:
        raise ValueError(f"subset.classes is {subset.classes}, but there are only {len(contents.classes)} classes")
    numbers = sorted(range(len(contents.classes)), key=contents.classes.__getitem__)[: subset.classes]
    return DatasetSource(
        classes=tuple(contents.classes[number] for number in numbers),
        shape=contents.shape,
        train=_smallest(contents.train, numbers, subset.train, "train"),
        test=_smallest(contents.test, numbers, subset.test, "test"),
    )


def _smallest(part: SplitSource, numbers: list[int], count: int, key: str) -> SplitSource:
    """Take `count` images of each of the classes with these numbers, which become 0, 1, ..."""
    images = part.images[:]
    chosen = []
    for label, number in enumerate(numbers):
        where = np.flatnonzero(part.labels == number)
        if len(where) < count:
            raise ValueError(f"subset.{key} is {count}, but there is a class of only {len(where)} images")
        chosen += sorted((sha256(images[index].tobytes()).digest(), label, index) for index in where)[:count]
    chosen.sort()
    return SplitSource(np.array([label for _, label, _ in chosen]), images[[index for _, _, index in chosen]])
