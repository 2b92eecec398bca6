"""Group regularization (paper, section 3.4; official losses/regularizers/GroupReg.py) as per-element decay.

The penalty is sum(coefficient * p ** 2) over the parameters, so that its gradient is exactly a decay of
2 * coefficient * p, which needs no autograd. The coefficients change once an epoch.
"""

import torch
from torch import Size, Tensor

from us3l.params import Regularizer


def coefficients(
    shapes: dict[str, Size], regularizer: Regularizer, epoch: int, epochs: int, full_width: bool
) -> dict[str, Tensor]:
    """One coefficient tensor, of a shape that broadcasts to the parameter's, for each parameter name.

    The group penalty leaves predictors out of a step at full width, as the official code does.
    """
    groups = _group_strengths(regularizer, epoch, epochs)
    plain = torch.tensor(regularizer.strength)
    result = {}
    for name, shape in shapes.items():
        if regularizer.kind == "l2":
            result[name] = plain
        elif full_width and "predictor" in name:
            result[name] = torch.tensor(0.0)
        elif len(shape) in (1, 4):
            result[name] = groups[_group_of_channel(shape[0], regularizer.groups)].view(-1, *[1] * (len(shape) - 1))
        else:
            result[name] = plain
    return result


def _group_strengths(regularizer: Regularizer, epoch: int, epochs: int) -> Tensor:
    """The strength of each group of channels [groups], from the first channels to the last."""
    index = torch.arange(regularizer.groups)
    if epoch < regularizer.warmup_epochs:
        return torch.full(index.shape, regularizer.strength)
    alpha, ramp_end = regularizer.alpha, epochs // 2
    if epoch < ramp_end:
        alpha *= (epoch - regularizer.warmup_epochs) / (ramp_end - regularizer.warmup_epochs)
    relative = alpha**index if regularizer.decay == "exponential" else 1 - alpha * index
    return regularizer.strength * relative


def _group_of_channel(channels: int, groups: int) -> Tensor:
    """The group of each channel [channels]: equal groups, the last of which takes the remainder."""
    if channels < groups:
        return torch.full((channels,), groups - 1)
    return (torch.arange(channels) // (channels // groups)).clamp(max=groups - 1)
