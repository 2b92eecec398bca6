"""The cost of a network: parameters and multiply-accumulates, for pruned networks without their zeros."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class CountsItself(Protocol):
    """A module that counts its own multiply-accumulates, such as those of attention."""

    def multiply_accumulates(self, output: Tensor) -> int:
        """Return the number of multiply-accumulates that made this output."""


@torch.no_grad()
def cost(network: nn.Module, image: Tensor, classes: int) -> dict[str, int]:
    """Count a network's parameters, and the multiply-accumulates of an image through it and a linear classifier.

    network: in evaluation mode; image: [1, C, H, W], on the network's device. Outputs and inputs of a layer whose
    weights are all zero are not counted, nor are channels that a normalization scales and shifts by zero.
    """
    macs = []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if isinstance(module, CountsItself):
            macs.append(module.multiply_accumulates(output))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            macs.append(output.numel() // len(module.weight) * _weights(module.weight, module.bias))

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | CountsItself)
    ]
    features = network(image)
    for hook in hooks:
        hook.remove()
    return {
        "parameters": sum(_parameters(module) for module in network.modules()),
        "macs": sum(macs) + features.numel() * classes,
    }


def _parameters(module: nn.Module) -> int:
    """Count the parameters of a module without those of its submodules."""
    own = dict(module.named_parameters(recurse=False))
    if "weight" not in own:
        return sum(parameter.numel() for parameter in own.values())
    bias = getattr(module, "bias", None)
    return _weights(own["weight"], bias) + (_outputs(own["weight"], bias) if "bias" in own else 0)


def _weights(weight: Tensor, bias: Tensor | None) -> int:
    if weight.dim() == 1:
        return _outputs(weight, bias)
    inputs = int(weight.transpose(0, 1).flatten(1).any(1).sum())
    return _outputs(weight, bias) * inputs * weight[0, 0].numel()


def _outputs(weight: Tensor, bias: Tensor | None) -> int:
    return int(active_outputs(weight, bias).sum())


def active_outputs(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Tell which outputs of a layer, or channels of a normalization, are not zero for every input: [outputs] bool."""
    active = weight.flatten(1).any(1) if weight.dim() > 1 else weight != 0
    return active if bias is None else active | (bias != 0)
