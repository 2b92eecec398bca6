"""BatchNorm with the statistics of each group of images (ghost BatchNorm, arXiv 1705.08741, algorithm 1).

Thus the views of all shards of a batch pass through a network together, each normalized as if it passed alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.models.backbones.layers import NormReLU, add_relu
from us3l.models.batch_norms import BatchNorm, batch_norms


def ghost_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, shortcut: Tensor | None, relu: bool
) -> Tensor:
    """Normalize x [groups * B, C, ...] by the statistics of each group; with `relu`, as a `NormReLU` does.

    On a GPU, fused kernels do it in float32 or bfloat16 (`us3l.models.ghost_batch_norm_triton`).
    """
    if x.is_cuda and x.dim() in (2, 4) and x.dtype in (torch.float32, torch.bfloat16):
        from us3l.models import ghost_batch_norm_triton

        return ghost_batch_norm_triton.ghost_batch_norm(x, weight, bias, groups, eps, shortcut, relu)
    return ghost_batch_norm_eager(x, weight, bias, groups, eps, shortcut, relu)


def ghost_batch_norm_eager(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, shortcut: Tensor | None, relu: bool
) -> Tensor:
    """Compute `ghost_batch_norm` by PyTorch's operations."""
    parts = [
        F.batch_norm(part, None, None, weight, bias, training=True, momentum=0.0, eps=eps) for part in x.chunk(groups)
    ]
    result = torch.cat(parts) if groups > 1 else parts[0]
    return add_relu(result, shortcut) if relu else result


def to_ghost_batch_norm(network: nn.Module, groups: Callable[[], int]) -> None:
    """Make all BatchNorms of a network use the statistics of each group, and track none.

    groups: returns the number of groups in a forward pass. A BatchNorm whose class overrides `forward`, such as a
    user's, keeps its own, and gets one group at a time (`us3l.training.micro_batches`).
    """
    for norm in batch_norms(network, BatchNorm).values():
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        if type(norm).forward in (BatchNorm.forward, NormReLU.forward):
            # Names, hooks and class of the module stay; only its code changes.
            norm.forward = _forward(norm, groups)  # type: ignore[method-assign]  # replaced in this instance only


def _forward(norm: BatchNorm, groups: Callable[[], int]) -> Callable[..., Tensor]:
    relu = isinstance(norm, NormReLU)

    def forward(x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return ghost_batch_norm(x, norm.weight, norm.bias, groups(), norm.eps, shortcut, relu)

    return forward
