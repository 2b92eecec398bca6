"""Floating-point operations: two for each multiply-accumulate of a convolution or a linear layer.

A backward pass has twice those of its forward pass.
"""

from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.setting import SIDE, Setting
from us3l.models.backbones.backbone import Backbone
from us3l.models.complexity import cost
from us3l.models.heads import Head, build_network

VIEWS = 2


def features(setting: Setting, width: float) -> float:
    """Of one image through the backbone."""
    channels = setting.plan.data.dataset.channels
    plain = Backbone(setting.run.backbone, channels).build(width).eval()
    return 2 * cost(plain, torch.zeros(1, channels, SIDE, SIDE), classes=0)["macs"]


def step(setting: Setting, widths: Sequence[float], teacher: bool = True) -> float:
    """Of a training step: a student at each width, the widest one first, and the momentum encoder."""
    heads: list[Head] = ["predictor", *["distillation_predictor"] * (len(widths) - 1)]
    students = sum(3 * _encoded(setting, width, head) for width, head in zip(widths, heads, strict=True))
    return setting.batch * VIEWS * (students + teacher * _encoded(setting, 1.0, None))


def _encoded(setting: Setting, width: float, head: Head | None) -> float:
    """Of one view through backbone, projector and head."""
    plain = Backbone(setting.run.backbone, setting.plan.data.dataset.channels).build(width)
    whole = build_network(setting.run.method, plain, plain, classes=0)
    layers = [*whole.projector, *(whole.get_submodule(head).modules() if head else [])]
    return features(setting, width) + 2 * sum(each.weight.numel() for each in layers if isinstance(each, nn.Linear))
