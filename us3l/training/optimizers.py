"""Optimizers of a flat tensor of weights, as torch.optim has them, without importing PyTorch's compiler.

`step` updates values [P] in place, and may overwrite gradients [P]. decay: [P]; with_grad: indices of the parameters
that have had a gradient; sizes: number of elements of each parameter.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from us3l.params.optimizer import TrainingOptimizer


class FlatOptimizer(Protocol):
    """An optimizer of one flat tensor; its next step depends on `state` alone."""

    state: dict[str, Tensor]

    def step(
        self, values: Tensor, gradients: Tensor, decay: Tensor | None, lr: float, with_grad: Sequence[int]
    ) -> None:
        """Take one step, in place."""
        ...


class SGD:
    """Stochastic gradient descent with momentum; the decay is part of the gradient."""

    def __init__(self, settings: TrainingOptimizer, values: Tensor, sizes: Sequence[int]) -> None:
        self.momentum = settings.momentum
        self.state = {"momentum_buffer": torch.zeros_like(values)}

    def step(
        self, values: Tensor, gradients: Tensor, decay: Tensor | None, lr: float, with_grad: Sequence[int]
    ) -> None:
        if decay is not None:
            gradients.addcmul_(decay, values)
        sgd_step(values, gradients, self.state["momentum_buffer"], lr, self.momentum)


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101); a parameter's steps count from its first gradient."""

    EPSILON = 1e-8

    def __init__(self, settings: TrainingOptimizer, values: Tensor, sizes: Sequence[int]) -> None:
        self.betas = settings.betas
        self.sizes = torch.tensor(sizes, device=values.device)
        self.state = {
            "exp_avg": torch.zeros_like(values),
            "exp_avg_sq": torch.zeros_like(values),
            "step": torch.zeros(len(sizes), dtype=torch.long),
        }

    def step(
        self, values: Tensor, gradients: Tensor, decay: Tensor | None, lr: float, with_grad: Sequence[int]
    ) -> None:
        exp_avg, exp_avg_sq, steps = self.state.values()
        steps[list(with_grad)] += 1
        if decay is not None:
            values.mul_(1 - lr * decay)
        exp_avg.lerp_(gradients, 1 - self.betas[0])
        exp_avg_sq.mul_(self.betas[1]).addcmul_(gradients, gradients, value=1 - self.betas[1])
        corrections = [1 - beta ** steps.clamp(min=1).double() for beta in self.betas]
        correction, correction_sq = (self._for_each_element(each, values) for each in corrections)
        values.sub_(lr * (exp_avg / correction) / ((exp_avg_sq / correction_sq).sqrt() + self.EPSILON))

    def _for_each_element(self, of_parameters: Tensor, values: Tensor) -> Tensor:
        """Repeat one number of each parameter for each of its elements."""
        numbers = of_parameters.to(values.device, values.dtype, non_blocking=True)
        return numbers.repeat_interleave(self.sizes, output_size=len(values))


OPTIMIZERS: dict[str, type[SGD] | type[AdamW]] = {"sgd": SGD, "adamw": AdamW}


@torch.no_grad()
def sgd_step(weights: Tensor, gradients: Tensor, momentum_buffer: Tensor, lr: float, momentum: float) -> None:
    """Take one step of SGD with momentum, in place and in one pass; the momentum buffer begins with zeros.

    All three are of one shape, laid out alike in memory. Without momentum the buffer is neither read nor moved. The
    operation is the one that torch.optim.SGD(fused=True) calls; it has no public name, and PyTorch's version is pinned.
    """
    torch._fused_sgd_(
        [weights],
        [gradients],
        [momentum_buffer] if momentum else [],
        weight_decay=0.0,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


@torch.no_grad()
def trusted(weights: Tensor, gradient: Tensor, weight_decay: float, trust: float) -> Tensor:
    """Scale the gradient with its decay to a norm of `trust` times that of the weights (LARS, arXiv 1708.03888).

    As apex's LARC without clipping has it: where either norm is 0, the gradient stays as it is, without decay.
    """
    norms = weights.norm(), gradient.norm()
    scale = trust * norms[0] / (norms[1] + weight_decay * norms[0] + 1e-8)
    return torch.where((norms[0] > 0) & (norms[1] > 0), scale * (gradient + weight_decay * weights), gradient)
