"""SGD with momentum, as torch.optim.SGD computes it, without importing PyTorch's compiler: a second of a short job."""

import torch
from torch import Tensor


@torch.no_grad()
def sgd_step(weights: Tensor, gradients: Tensor, velocity: Tensor, lr: float, momentum: float) -> None:
    """One step, in place; the velocity, of the weights' shape, begins with zeros."""
    velocity.mul_(momentum).add_(gradients)
    weights.add_(velocity, alpha=-lr)
