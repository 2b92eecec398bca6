"""Builders of both ways of training, for the same network and the same images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.setting import CLASSES, IMAGE_SIZE, Setting
from benchmarks.straightforward.training import Trainer, Views
from us3l.data.stream import Shard
from us3l.models.backbones.backbone import Backbone
from us3l.params.runs import PretrainRun
from us3l.training.build import build_train_step
from us3l.training.step import TrainStep
from us3l.utils.distributed import World


def train_step(setting: Setting, listen: Callable[[Tensor], None] = lambda gradients: None) -> TrainStep:
    """Build our training step; it calls `listen` with the gradients of each width before it uses them."""
    return train_step_of(setting, setting.run, listen)


def train_step_of(
    setting: Setting, run: PretrainRun, listen: Callable[[Tensor], None] = lambda gradients: None
) -> TrainStep:
    """Build our training step for another run than the setting's."""
    backbone, world = Backbone(run.backbone, setting.plan.data.dataset.channels), World(0, 1, setting.device)
    train_step = build_train_step(run, backbone, CLASSES, setting.seed, world)
    train_step.all_reduce_ = listen
    return train_step


def trainer(setting: Setting) -> Trainer:
    return Trainer(setting.run, setting.plan.data.dataset.channels, setting.device)


def two_views(setting: Setting) -> Views:
    """Draw two views of a batch of noise, [B, C, H, W] each."""
    draw = torch.Generator().manual_seed(setting.seed)
    shape = setting.batch, setting.plan.data.dataset.channels, IMAGE_SIZE, IMAGE_SIZE
    first, second = (torch.randn(shape, generator=draw).to(setting.device) for _ in range(2))
    return first, second


def shards(views: Views, count: int) -> list[Shard]:
    """Split the views of a batch into shards as our training step takes them."""
    parts = [view.to(memory_format=torch.channels_last).chunk(count) for view in views]
    labels = torch.zeros(len(views[0]), dtype=torch.long, device=views[0].device).chunk(count)
    return [Shard(both, number, labels[number]) for number, both in enumerate(zip(*parts, strict=True))]


def plain_shards(views: Views, count: int) -> Sequence[Views]:
    """Split the views of a batch into shards as the straightforward training step takes them."""
    first, second = (view.chunk(count) for view in views)
    return list(zip(first, second, strict=True))
