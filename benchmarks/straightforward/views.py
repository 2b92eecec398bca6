"""Images through torchvision's transforms, one by one, as PIL images in the workers of a DataLoader."""

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


def random_view(recipe: Augmentation, normalize: Normalize) -> Transform:
    """A recipe's transforms, as far as CIFAR's has them."""
    steps: list[Any] = []
    if crop := recipe.resized_crop:
        steps.append(
            transforms.RandomResizedCrop(crop.size, crop.scale, crop.ratio, InterpolationMode(crop.interpolation))
        )
    if jitter := recipe.color_jitter:
        colors = transforms.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        steps.append(transforms.RandomApply([colors], jitter.probability))
    if recipe.grayscale:
        steps.append(transforms.RandomGrayscale(recipe.grayscale))
    if recipe.flip:
        steps.append(transforms.RandomHorizontalFlip(recipe.flip))
    return transforms.Compose([*steps, *_to_tensor(normalize)])


def test_view(recipe: TestView, normalize: Normalize) -> Transform:
    how = InterpolationMode(recipe.interpolation)
    steps: list[Any] = [transforms.Resize(recipe.resize, how)] if recipe.resize else []
    if recipe.center_crop:
        steps.append(transforms.CenterCrop(recipe.center_crop))
    return transforms.Compose([*steps, *_to_tensor(normalize)])


def _to_tensor(normalize: Normalize) -> list[Any]:
    return [transforms.ToTensor(), transforms.Normalize(normalize.mean, normalize.std)]


class Views(Dataset):
    """Of each image a view by each transform, and its label."""

    def __init__(self, split: Split, views: list[Transform]) -> None:
        self.split, self.views = split, views

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        pixels = self.split.images[index]
        image = Image.fromarray(np.squeeze(pixels))
        return [view(image) for view in self.views], int(self.split.labels[index])


def loader(split: Split, views: list[Transform], batch: int, workers: int, device: torch.device) -> DataLoader:
    """Shuffled batches of views [B, C, H, W] and labels [B]; the last one may be smaller."""
    pinned, stay = device.type == "cuda", workers > 0
    settings = {"num_workers": workers, "persistent_workers": stay, "pin_memory": pinned}
    return DataLoader(Views(split, views), batch, shuffle=True, **settings)
