"""SGD with momentum, as torch.optim.SGD computes it, without importing PyTorch's compiler: a second of a short job."""

import torch
from torch import Tensor


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
