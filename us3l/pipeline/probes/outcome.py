"""The outcome of a probe: plain numbers and checksums."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from us3l.pipeline.probes.comparison import CHECKSUM


def describe(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe tensors by name: checksum, norm, and the projection onto a fixed direction, which sees the order."""
    return {name: _describe(tensor, _flat(tensor)) for name, tensor in tensors.items()}


def describe_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe tensors by name: their checksum, and norm and projection of what has changed."""
    return {name: _describe(tensor, _flat(tensor) - _flat(before[name])) for name, tensor in after.items()}


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().flatten().double()


def _describe(tensor: Tensor, numbers: Tensor) -> dict[str, Any]:
    content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return {
        CHECKSUM: hashlib.sha256(content).hexdigest(),
        "norm": float(numbers.norm()),
        "projection": float(numbers @ _direction(len(numbers))),
    }


@lru_cache(maxsize=8)
def _direction(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64).cos_()


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate tensors as one vector of float64."""
    nothing = torch.zeros(0, dtype=torch.float64)
    return torch.cat([nothing, *map(_flat, tensors)])
