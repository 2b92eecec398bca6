"""Images that a linear classifier on their pixels tells apart, as an evaluation sees them."""

from typing import Any

import torch
from torch import Tensor, nn

from us3l.data.store import Split, Store
from us3l.evaluation.features import EvaluationImages
from us3l.models.backbones.backbone import Backbone
from us3l.params.dataset import Views

CPU = torch.device("cpu")
MEAN, STD = 0.3, 0.4


def pictures(count: int = 90) -> tuple[Tensor, Tensor]:
    """Noise [count, 8, 8, 1], and on it a bright row for each of three classes, at a height of its own."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (count, 8, 8, 1), generator=generator).to(torch.uint8)
    labels = torch.arange(count) % 3
    images[torch.arange(count), 2 * labels] += 100
    return images, labels


def pixels(images: Tensor) -> Tensor:
    """[B, 1, 8, 8], normalized."""
    return (images.permute(0, 3, 1, 2) / 255 - MEAN) / STD


def evaluated(images: Tensor, labels: Tensor, seed: int = 0, **linear: Any) -> EvaluationImages:
    """The first two thirds of them are for training, in this linear view."""
    record = {"normalize": {"mean": [MEAN], "std": [STD]}, "pretrain": [{}, {}], "linear": linear}
    count = len(images) * 2 // 3
    splits = [Split(images[part].numpy(), labels[part].numpy()) for part in (slice(count), slice(count, None))]
    return EvaluationImages(Store(*splits, ("top", "middle", "bottom"), "0"), Views.model_validate(record), seed, CPU)


def network(width: float) -> nn.Module:
    torch.manual_seed(0)
    return Backbone("small-resnet", 1).build(width)
