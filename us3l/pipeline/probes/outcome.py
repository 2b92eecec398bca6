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
    return {name: _describe(tensor.detach().cpu()) for name, tensor in tensors.items()}


def _describe(tensor: Tensor) -> dict[str, Any]:
    values = tensor.flatten().double()
    content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return {
        CHECKSUM: hashlib.sha256(content).hexdigest(),
        "norm": float(values.norm()),
        "projection": float(values @ _direction(len(values))),
    }


@lru_cache(maxsize=8)
def _direction(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64).cos_()


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate tensors as one vector of float64."""
    nothing = torch.zeros(0, dtype=torch.float64)
    return torch.cat([nothing, *(tensor.detach().cpu().flatten().double() for tensor in tensors)])
