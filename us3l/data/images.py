"""Views of a split's images, which are resident on the device or decoded from their files."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from us3l.data.files import Files
from us3l.data.resident import Resident, to_device
from us3l.data.store import Split
from us3l.params.dataset import Augmentation, Normalize, TestView
from us3l.utils.philox import Purpose, RandomKey


class Images(Protocol):
    """Images of a split. A batch is the indices of its images, [B] int64."""

    device: torch.device

    def __len__(self) -> int: ...

    def augmented(
        self,
        batches: Sequence[Tensor],
        augmentations: Sequence[Augmentation],
        normalize: Normalize,
        key: RandomKey,
    ) -> Iterator[list[Tensor]]:
        """Yield for each batch one random view [B, C, h, w] float32 per augmentation.

        See `us3l.data.augment.views.augment`. Raises UserError when the blur is too wide for the images or a file
        cannot be read.
        """
        ...

    def plain(self, batches: Sequence[Tensor], view: TestView, normalize: Normalize) -> Iterator[Tensor]:
        """Yield the test view [B, C, h, w] float32 of each batch."""
        ...


def open_images(split: Split, device: torch.device) -> Images:
    """Open the images of a split for a device."""
    if isinstance(split.images, Files):
        from us3l.data.decoded import Decoded

        return Decoded(split.images, device)
    return Resident(to_device(split.images, device))


def first_view(images: Images, view: Augmentation | TestView, normalize: Normalize) -> Tensor:
    """Return one image as a network sees it, [1, C, H, W]; its shape is that of all images in this view."""
    batches = [torch.arange(1, device=images.device)]
    if isinstance(view, TestView):
        return next(images.plain(batches, view, normalize))
    [[x]] = images.augmented(batches, [view], normalize, RandomKey(0, Purpose.AUGMENT, 0))
    return x
