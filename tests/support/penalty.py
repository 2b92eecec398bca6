"""The penalties as their texts have them, for autograd: groups of channels, each with a strength of its own."""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from us3l.params.optimizer import Regularizer


def penalty(
    parameters: Iterable[tuple[str, Tensor]],
    regularizer: Regularizer,
    epoch: int,
    epochs: int,
    width: float,
    batch_norms: Collection[str] = (),
) -> Tensor:
    total = torch.zeros(())
    for name, p in parameters:
        if regularizer.kind in ("l1-batchnorm", "group-l1-batchnorm"):
            if name in batch_norms and epoch >= regularizer.warmup_epochs:
                for index, group in enumerate(groups(p, regularizer)):
                    factor = index * regularizer.alpha if regularizer.kind == "group-l1-batchnorm" else 1
                    total = total + factor * regularizer.strength * group.abs().sum()
        elif regularizer.kind == "l2":
            total = total + regularizer.strength * (p**2).sum()
        elif width < 1 or "predictor" not in name:
            for index, group in enumerate(groups(p, regularizer)):
                total = total + strength(regularizer, epoch, epochs, index) * (group**2).sum()
    return total


def groups(p: Tensor, regularizer: Regularizer) -> list[Tensor]:
    """BatchNorms, biases and convolutions in groups of output channels, the last with the rest; linear ones whole.

    By input feature, the linear ones in groups of columns, and all others whole.
    """
    by_input, count = regularizer.by == "input-feature", regularizer.groups
    if (p.dim() == 2) != by_input:
        return [p]
    p = p.T if by_input else p
    size = len(p) // count
    return [p[index * size : (index + 1) * size] for index in range(count - 1)] + [p[(count - 1) * size :]]


def strength(regularizer: Regularizer, epoch: int, epochs: int, index: int) -> float:
    warmup, half, alpha = regularizer.warmup_epochs, epochs // 2, regularizer.alpha
    if epoch < warmup:
        return regularizer.strength
    if epoch < half:
        alpha = alpha * (epoch - warmup) / (half - warmup)
    return regularizer.strength * (alpha**index if regularizer.decay == "exponential" else 1 - alpha * index)
