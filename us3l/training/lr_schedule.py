"""Learning rate schedules as in the official code: constant within an epoch, or set at every step (MoCo v3)."""

import math

from us3l.params.optimizer import Optimizer


def learning_rate(optimizer: Optimizer, epoch: float, epochs: int) -> float:
    """Return the rate at `epoch`: linear warm-up from 0, then cosine (which ends above 0), or steps by 0.1."""
    if epoch < optimizer.warmup_epochs:
        return optimizer.lr * epoch / optimizer.warmup_epochs
    if optimizer.schedule == "multistep":
        return optimizer.lr * 0.1 ** sum(epoch >= milestone for milestone in optimizer.milestones)
    if optimizer.schedule == "cosine":
        progress = (epoch - optimizer.warmup_epochs) / (epochs - optimizer.warmup_epochs)
        return optimizer.lr * cosine(progress)
    return optimizer.lr


def cosine(progress: float) -> float:
    """Return half a cosine wave: 1 at the beginning of a training, 0 at its end."""
    return (1 + math.cos(math.pi * progress)) / 2
