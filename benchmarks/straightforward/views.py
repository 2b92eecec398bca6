"""Views by torchvision's transforms of one PIL image after the other, in the workers of a DataLoader."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from us3l.data.store import Split
from us3l.params.dataset import Augmentation, Normalize, TestView

Transform = Callable[[Image.Image], Any]


def random_view(augmentation: Augmentation, normalize: Normalize) -> Transform:
    """Build an augmentation, with the operations that CIFAR's has."""
    steps: list[Any] = []
    if crop := augmentation.resized_crop:
        steps.append(
            transforms.RandomResizedCrop(crop.size, crop.scale, crop.ratio, InterpolationMode(crop.interpolation))
        )
    if jitter := augmentation.color_jitter:
        colors = transforms.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        steps.append(transforms.RandomApply([colors], jitter.probability))
    if augmentation.grayscale:
        steps.append(transforms.RandomGrayscale(augmentation.grayscale))
    if augmentation.flip:
        steps.append(transforms.RandomHorizontalFlip(augmentation.flip))
    return transforms.Compose([*steps, *_to_tensor(normalize)])


def test_view(view: TestView, normalize: Normalize) -> Transform:
    how = InterpolationMode(view.interpolation)
    steps: list[Any] = [transforms.Resize(view.resize, how)] if view.resize else []
    if view.center_crop:
        steps.append(transforms.CenterCrop(view.center_crop))
    return transforms.Compose([*steps, *_to_tensor(normalize)])


def _to_tensor(normalize: Normalize) -> list[Any]:
    return [transforms.ToTensor(), transforms.Normalize(normalize.mean, normalize.std)]


class Views(Dataset):
    """The views of each image, one by each transform, and its label."""

    def __init__(self, split: Split, views: list[Transform]) -> None:
        assert isinstance(split.images, np.ndarray)  # in memory, not in files
        self.images, self.labels, self.views = split.images, split.labels, views

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        image = Image.fromarray(np.squeeze(self.images[index]))
        return [view(image) for view in self.views], int(self.labels[index])


def loader(split: Split, views: list[Transform], batch: int, workers: int, device: torch.device) -> DataLoader:
    """Build a loader of shuffled batches: views [B, C, H, W] and labels [B]; the last batch may be smaller."""
    return DataLoader(
        Views(split, views),
        batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
