"""Data sets that lie whole in the memory of the device that computes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from us3l.data.augment import augment, plain_view
from us3l.params.data import Augmentation, Normalize, TestView
from us3l.random import Purpose


def resident(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of an array, mapped from a file or not, on the device."""
    return torch.from_numpy(np.array(array)).to(device)


@dataclass(frozen=True)
class Resident:
    """Images on the device, pixels: [N, H, W, C] uint8. See `us3l.data.images.Images`."""

    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def augmented(
        self,
        batches: Sequence[Tensor],
        recipes: Sequence[Augmentation],
        normalize: Normalize,
        *,
        seed: int,
        purpose: Purpose,
        epoch: int,
    ) -> Iterator[list[Tensor]]:
        for samples in batches:
            images, where = self.pixels[samples], {"seed": seed, "purpose": purpose, "epoch": epoch, "samples": samples}
            yield [augment(images, recipe, normalize, **where, view=view) for view, recipe in enumerate(recipes)]

    def plain(self, batches: Sequence[Tensor], recipe: TestView, normalize: Normalize) -> Iterator[Tensor]:
        return (plain_view(self.pixels[samples], recipe, normalize) for samples in batches)
