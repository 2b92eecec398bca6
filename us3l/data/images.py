"""How stages see the images of a split, whether these lie on the device whole or are decoded from files."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from us3l.data.files import Files
from us3l.data.resident import Resident, resident
from us3l.data.store import Split
from us3l.params.dataset import Augmentation, Normalize, TestView
from us3l.utils.philox import RandomKey


class Images(Protocol):
    """The images of a split. Batches are the numbers of images: each [B] int64."""

    def __len__(self) -> int: ...

    def augmented(
        self,
        batches: Sequence[Tensor],
        recipes: Sequence[Augmentation],
        normalize: Normalize,
        key: RandomKey,
    ) -> Iterator[list[Tensor]]:
        """For each batch, a random view [B, C, h, w] float32 by each recipe, as `us3l.data.augment.augment` has it.

        Raises UserError when the blur is too wide for the images, and what reading files may raise.
        """
        ...

    def plain(self, batches: Sequence[Tensor], recipe: TestView, normalize: Normalize) -> Iterator[Tensor]:
        """For each batch its test view [B, C, h, w] float32."""
        ...


def open_images(split: Split, device: torch.device) -> Images:
    """The images of a split, to be seen on a device."""
    if isinstance(split.images, Files):
        from us3l.data.decoded import Decoded

        return Decoded(split.images, device)
    return Resident(resident(split.images, device))
