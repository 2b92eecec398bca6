"""Optimizers of a flat tensor of weights, as torch.optim has them, without importing PyTorch's compiler.

`step` moves values [P] in place, and may overwrite gradients [P]. decay: [P]; moving: the numbers of the parameters
that have had a gradient; sizes: how many elements each parameter has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from us3l.params.optimizer import TrainingOptimizer


class SGD:
    """Stochastic gradient descent with momentum; the decay is part of the gradient."""

    def __init__(self, settings: TrainingOptimizer, values: Tensor, sizes: Sequence[int]) -> None:
        self.momentum = settings.momentum
        self.state = {"velocity": torch.zeros_like(values)}

    def step(self, values: Tensor, gradients: Tensor, decay: Tensor | None, lr: float, moving: Sequence[int]) -> None:
        if decay is not None:
            gradients.addcmul_(decay, values)
        sgd_step(values, gradients, self.state["velocity"], lr, self.momentum)


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101); a parameter's age are its steps from the first gradient."""

    EPSILON = 1e-8

    def __init__(self, settings: TrainingOptimizer, values: Tensor, sizes: Sequence[int]) -> None:
        self.betas = settings.betas
        self.sizes = torch.tensor(sizes, device=values.device)
        self.state = {
            "mean": torch.zeros_like(values),
            "square": torch.zeros_like(values),
            "age": torch.zeros(len(sizes), dtype=torch.long),
        }

    def step(self, values: Tensor, gradients: Tensor, decay: Tensor | None, lr: float, moving: Sequence[int]) -> None:
        mean, square, age = self.state.values()
        age[list(moving)] += 1
        if decay is not None:
            values.mul_(1 - lr * decay)
        mean.lerp_(gradients, 1 - self.betas[0])
        square.mul_(self.betas[1]).addcmul_(gradients, gradients, value=1 - self.betas[1])
        of_mean, of_square = (self._each(1 - beta ** age.clamp(min=1).double(), values) for beta in self.betas)
        values.sub_(lr * (mean / of_mean) / ((square / of_square).sqrt() + self.EPSILON))

    def _each(self, of_parameters: Tensor, values: Tensor) -> Tensor:
        """One number of each parameter, for each of its elements."""
        numbers = of_parameters.to(values.device, values.dtype, non_blocking=True)
        return numbers.repeat_interleave(self.sizes, output_size=len(values))


@torch.no_grad()
def sgd_step(weights: Tensor, gradients: Tensor, velocity: Tensor, lr: float, momentum: float) -> None:
    """One step, in place and in one pass; the velocity begins with zeros.

    All three are of one shape, laid out alike in memory. Without momentum the velocity is not read, nor moved.
    """
    settings = {"weight_decay": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False, "is_first_step": False}
    torch._fused_sgd_([weights], [gradients], [velocity] if momentum else [], momentum=momentum, lr=lr, **settings)


@torch.no_grad()
def trusted(weights: Tensor, gradient: Tensor, weight_decay: float, trust: float) -> Tensor:
    """The gradient with its decay, scaled to a norm of `trust` times that of the weights (LARS, arXiv 1708.03888).

    As apex's LARC without clipping has it: where either norm is 0, the gradient stays as it is, without decay.
    """
    norms = weights.norm(), gradient.norm()
    scale = trust * norms[0] / (norms[1] + weight_decay * norms[0] + 1e-8)
    return torch.where((norms[0] > 0) & (norms[1] > 0), scale * (gradient + weight_decay * weights), gradient)
