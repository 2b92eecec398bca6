"""Floating-point operations: two for each multiply-accumulate of a convolution or a linear layer.

A backward pass has twice as many as its forward pass.
"""

from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.setting import IMAGE_SIZE, Setting
from us3l.models.backbones.backbone import Backbone
from us3l.models.complexity import cost
from us3l.models.heads import Head, build_network

VIEWS = 2


def features(setting: Setting, width: float) -> float:
    """Count the operations of the backbone on one image."""
    channels = setting.plan.data.dataset.channels
    plain = Backbone(setting.run.backbone, channels).build(width).eval()
    return 2 * cost(plain, torch.zeros(1, channels, IMAGE_SIZE, IMAGE_SIZE), classes=0)["macs"]


def step(setting: Setting, widths: Sequence[float], teacher: bool = True) -> float:
    """Count the operations of a training step: a student at each width, the widest first, and the momentum encoder."""
    heads: list[Head] = ["predictor" if width == widths[0] else "distillation_predictor" for width in widths]
    students = sum(3 * _forward(setting, width, head) for width, head in zip(widths, heads, strict=True))
    return setting.batch * VIEWS * (students + teacher * _forward(setting, 1.0, None))


def _forward(setting: Setting, width: float, head: Head | None) -> float:
    """Count the operations of backbone, projector and head on one view."""
    plain = Backbone(setting.run.backbone, setting.plan.data.dataset.channels).build(width)
    network = build_network(setting.run.method, plain, plain, classes=0)
    parts = [network.get_submodule(name) for name in ("projector", head) if name]
    linears = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    return features(setting, width) + 2 * sum(layer.weight.numel() for layer in linears)
