"""Group regularization as its formula says: masks in double precision, and autograd through the sum of squares."""

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

from us3l.params.optimizer import Regularizer


def penalty(
    named: Iterable[tuple[str, Tensor]], regularizer: Regularizer, epoch: int, epochs: int, width: float
) -> Tensor:
    """Compute what the regularizer of the kind "group" adds to the loss, float64."""
    terms = []
    for name, parameter in named:
        if width == 1.0 and "predictor" in name:
            continue
        mask = torch.ones_like(parameter, dtype=torch.float64)
        if parameter.dim() in (1, 4):
            size = len(parameter) // regularizer.groups
            for group in range(regularizer.groups):
                end = len(parameter) if group == regularizer.groups - 1 else (group + 1) * size
                mask[group * size : end] = _weight(regularizer, epoch, epochs, group)
        terms.append(regularizer.strength * (mask * parameter**2).sum())
    return reduce(torch.add, terms)


def _weight(regularizer: Regularizer, epoch: int, epochs: int, group: int) -> float:
    """Compute a group's coefficient relative to the first group's: it falls over the first half of the epochs."""
    warmup, half = regularizer.warmup_epochs, epochs // 2
    if epoch < warmup:
        return 1.0
    alpha = regularizer.alpha * (min(epoch, half) - warmup) / (half - warmup)
    return alpha**group if regularizer.decay == "exponential" else 1 - alpha * group
