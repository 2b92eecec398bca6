"""The BatchNorms of a network."""

from typing import TypeVar

from torch import nn

# The base of BatchNorm1d to 3d, of SyncBatchNorm and of a user's own classes has no public name in PyTorch, whose
# version is pinned; everything else takes it from here.
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

Norm = TypeVar("Norm", bound=BatchNorm)


def batch_norms(network: nn.Module, kind: type[Norm]) -> dict[str, Norm]:
    """Return the BatchNorms of a class by their paths, in the order in which they are registered."""
    return {path: module for path, module in network.named_modules() if isinstance(module, kind)}


def batch_norm_parameters(network: nn.Module, kind: type[BatchNorm]) -> dict[str, nn.Parameter]:
    """Return the parameters of these BatchNorms by their names in the network."""
    return {
        f"{path}.{name}" if path else name: parameter
        for path, norm in batch_norms(network, kind).items()
        for name, parameter in norm.named_parameters()
    }
