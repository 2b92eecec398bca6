"""Both ways of training, with the same network and the same images. Only this file knows how to build them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.setting import CLASSES, SIDE, Setting
from benchmarks.straightforward.training import Trainer, Views
from us3l.data.stream import Shard
from us3l.models.backbones.backbone import Backbone
from us3l.params.runs import PretrainRun
from us3l.training.build import build_train_step
from us3l.training.step import TrainStep
from us3l.utils.distributed import World


def train_step(setting: Setting, listen: Callable[[Tensor], None] = lambda gradients: None) -> TrainStep:
    """Build ours; `listen` is called with the gradients of each width, before they are used."""
    return train_step_of(setting, setting.run, listen)


def train_step_of(
    setting: Setting, run: PretrainRun, listen: Callable[[Tensor], None] = lambda gradients: None
) -> TrainStep:
    """Build ours for another run."""
    backbone, world = Backbone(run.backbone, setting.plan.data.dataset.channels), World(0, 1, setting.device)
    train_step = build_train_step(run, backbone, CLASSES, setting.seed, world)
    train_step.all_reduce_ = listen
    return train_step


def trainer(setting: Setting) -> Trainer:
    return Trainer(setting.run, setting.plan.data.dataset.channels, setting.device)


def two_views(setting: Setting) -> Views:
    """Of a batch of noise, [B, C, H, W] each."""
    draw = torch.Generator().manual_seed(setting.seed)
    shape = setting.batch, setting.plan.data.dataset.channels, SIDE, SIDE
    first, second = (torch.randn(shape, generator=draw).to(setting.device) for _ in range(2))
    return first, second


def shards(views: Views, count: int) -> list[Shard]:
    """Views of a batch as a training step takes them."""
    laid_out = [view.to(memory_format=torch.channels_last).chunk(count) for view in views]
    labels = torch.zeros(len(views[0]), dtype=torch.long, device=views[0].device).chunk(count)
    return [Shard(both, number, labels[number]) for number, both in enumerate(zip(*laid_out, strict=True))]


def plain_shards(views: Views, count: int) -> Sequence[tuple[Tensor, Tensor]]:
    return list(zip(*(view.chunk(count) for view in views), strict=True))
