"""Networks without storage: code and shapes only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def on_meta_device(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the module that `build` makes, on the meta device and not initialized."""
    with torch.device("meta"), _WithoutRandomNumbers():
        return build()


class _WithoutRandomNumbers(TorchFunctionMode):
    """Skips random initialization: on the meta device it would import PyTorch's compiler, which takes a second."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return function(*args, **(kwargs or {}))
