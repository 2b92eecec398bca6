"""BatchNorm with statistics of its own for each group of images (ghost BatchNorm, arXiv 1705.08741, algorithm 1).

So the views of all shards of a batch go through a network together, and each is normalized as if it went alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from us3l.models.backbones.layers import NormReLU, activated


def ghost_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, shortcut: Tensor | None, relu: bool
) -> Tensor:
    """x [groups * B, C, ...] with batch statistics, what follows a `NormReLU` included where `relu`.

    A GPU makes one pass of it (`us3l.models.ghost_batch_norm_triton`), in float32 or bfloat16.
    """
    if x.is_cuda and x.dim() in (2, 4) and x.dtype in (torch.float32, torch.bfloat16):
        from us3l.models import ghost_batch_norm_triton

        return ghost_batch_norm_triton.ghost_batch_norm(x, weight, bias, groups, eps, shortcut, relu)
    return plain(x, weight, bias, groups, eps, shortcut, relu)


def plain(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, shortcut: Tensor | None, relu: bool
) -> Tensor:
    """The same in PyTorch's operations."""
    parts = [
        F.batch_norm(part, None, None, weight, bias, training=True, momentum=0.0, eps=eps) for part in x.chunk(groups)
    ]
    result = torch.cat(parts) if groups > 1 else parts[0]
    return activated(result, shortcut) if relu else result


def keep_apart(norm: _BatchNorm, groups: Callable[[], int]) -> None:
    """Have a BatchNorm take statistics within each group of a batch, and keep none; groups: how many there are.

    One of a class that does more, such as a user's own, goes on doing it, and sees one group at a
    time (`us3l.training.micro_batches`).
    """
    norm.track_running_stats = False
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    if type(norm).forward not in (_BatchNorm.forward, NormReLU.forward):
        return
    relu = isinstance(norm, NormReLU)

    def forward(x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return ghost_batch_norm(x, norm.weight, norm.bias, groups(), norm.eps, shortcut, relu)

    norm.forward = forward
