"""The outcome of a probe: plain numbers and checksums."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from us3l.pipeline.probes.comparison import CHECKSUM

BLOCK = 2**16  # numbers that are described at a time


def describe(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe tensors by name: checksum, norm, and the projection onto a fixed direction, which sees the order."""
    return {name: _describe(tensor) for name, tensor in tensors.items()}


def describe_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe tensors by name: their checksum, and norm and projection of what has changed."""
    return {name: _describe(tensor, before[name]) for name, tensor in after.items()}


def _describe(tensor: Tensor, before: Tensor | None = None) -> dict[str, Any]:
    flat = _flat(tensor)
    content = flat.view(torch.uint8).numpy().data
    square, projection = 0.0, 0.0
    blocks = [flat.split(BLOCK), _flat(before).split(BLOCK)] if before is not None else [flat.split(BLOCK)]
    for block in zip(*blocks, strict=True):  # small enough for a cache
        numbers = block[0].double() - sum(each.double() for each in block[1:])
        square += float(numbers @ numbers)
        projection += float(numbers @ _direction()[: len(numbers)])
    return {CHECKSUM: hashlib.sha256(content).hexdigest(), "norm": math.sqrt(square), "projection": projection}


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().view(-1)


@cache
def _direction() -> Tensor:
    return torch.arange(BLOCK, dtype=torch.float64).cos_()


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenate tensors as one vector of float64."""
    nothing = torch.zeros(0, dtype=torch.float64)
    return torch.cat([nothing, *(_flat(tensor).double() for tensor in tensors)])
