"""Data sets that fit into the memory of the device."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from us3l.data.augment.views import augment, plain_view
from us3l.params.dataset import Augmentation, Normalize, TestView
from us3l.utils.philox import RandomKey


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array, which may be memory-mapped, to the device."""
    return torch.from_numpy(np.array(array)).to(device)


class Resident:
    """Images on the device. See `us3l.data.images.Images`."""

    def __init__(self, pixels: Tensor) -> None:
        """Keep pixels: [N, H, W, C] uint8 with their channels first, as views need them."""
        self.device = pixels.device
        self.planes = pixels.permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.planes)

    def augmented(
        self,
        batches: Sequence[Tensor],
        augmentations: Sequence[Augmentation],
        normalize: Normalize,
        key: RandomKey,
    ) -> Iterator[list[Tensor]]:
        """Yield random views as `Images.augmented`; those of equal augmentations are made together, which is faster."""

        def views(samples: Tensor, augmentation: Augmentation, numbers: range) -> Iterable[Tensor]:
            view = torch.tensor(numbers).to(samples.device, non_blocking=True).repeat_interleave(len(samples))
            some = samples.repeat(len(numbers))
            return augment(self._select(some), augmentation, normalize, key, some, view).chunk(len(numbers))

        groups = _groups(augmentations)
        for samples in batches:
            yield [view for augmentation, numbers in groups for view in views(samples, augmentation, numbers)]

    def plain(self, batches: Sequence[Tensor], view: TestView, normalize: Normalize) -> Iterator[Tensor]:
        return (plain_view(self._select(samples), view, normalize) for samples in batches)

    def _select(self, samples: Tensor) -> Tensor:
        indices = samples.to(self.planes.device, non_blocking=True)
        return self.planes.index_select(0, indices).permute(0, 2, 3, 1)


def _groups(augmentations: Sequence[Augmentation]) -> list[tuple[Augmentation, range]]:
    """Group equal consecutive augmentations, each group with the numbers of its views."""
    starts = [i for i, augmentation in enumerate(augmentations) if i == 0 or augmentation != augmentations[i - 1]]
    return [(augmentations[start], range(start, stop)) for start, stop in pairwise([*starts, len(augmentations)])]
