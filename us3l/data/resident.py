"""Data sets that lie whole in the memory of the device that computes."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from us3l.data.augment.views import augment, plain_view
from us3l.params.dataset import Augmentation, Normalize, TestView
from us3l.utils.philox import RandomKey


def resident(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of an array, mapped from a file or not, on the device."""
    return torch.from_numpy(np.array(array)).to(device)


class Resident:
    """Images on the device. See `us3l.data.images.Images`."""

    def __init__(self, pixels: Tensor) -> None:
        """pixels: [N, H, W, C] uint8, kept by channels, as views are made."""
        self.device = pixels.device
        self.planes = pixels.permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.planes)

    def augmented(
        self,
        batches: Sequence[Tensor],
        recipes: Sequence[Augmentation],
        normalize: Normalize,
        key: RandomKey,
    ) -> Iterator[list[Tensor]]:
        """Views of equal recipes are made together, which takes less time."""

        def views(samples: Tensor, recipe: Augmentation, numbers: range) -> Iterable[Tensor]:
            view = torch.tensor(numbers).to(samples.device, non_blocking=True).repeat_interleave(len(samples))
            some = samples.repeat(len(numbers))
            return augment(self._at(some), recipe, normalize, key, some, view).chunk(len(numbers))

        runs = _runs(recipes)
        for samples in batches:
            yield [view for recipe, numbers in runs for view in views(samples, recipe, numbers)]

    def plain(self, batches: Sequence[Tensor], recipe: TestView, normalize: Normalize) -> Iterator[Tensor]:
        return (plain_view(self._at(samples), recipe, normalize) for samples in batches)

    def _at(self, samples: Tensor) -> Tensor:
        where = samples.to(self.planes.device, non_blocking=True)
        return self.planes.index_select(0, where).permute(0, 2, 3, 1)


def _runs(recipes: Sequence[Augmentation]) -> list[tuple[Augmentation, range]]:
    """Recipes that follow each other and are equal, with the numbers of their views."""
    starts = [i for i, recipe in enumerate(recipes) if i == 0 or recipe != recipes[i - 1]]
    return [(recipes[start], range(start, stop)) for start, stop in pairwise([*starts, len(recipes)])]
