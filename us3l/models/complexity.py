"""What a network takes: parameters and multiply-accumulates, of pruned networks those of what is left."""

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def cost(network: nn.Module, image: Tensor, classes: int) -> dict[str, int]:
    """Parameters of a network in evaluation mode, and multiply-accumulates of an image through it and a classifier.

    image: [1, C, H, W], on the network's device. An output or input of a layer whose weights are all zero is not
    counted, nor is a channel that a normalization multiplies by zero and adds zero to.
    """
    macs = []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if hasattr(module, "multiply_accumulates"):  # it knows its own
            macs.append(module.multiply_accumulates(output))
        else:
            macs.append(output.numel() // len(module.weight) * _weights(module))

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) or hasattr(module, "multiply_accumulates")
    ]
    features = network(image)
    for hook in hooks:
        hook.remove()
    return {
        "parameters": sum(_parameters(module) for module in network.modules()),
        "macs": sum(macs) + features.numel() * classes,
    }


def _parameters(module: nn.Module) -> int:
    """Those that are a module's own."""
    own = dict(module.named_parameters(recurse=False))
    if "weight" not in own:
        return sum(parameter.numel() for parameter in own.values())
    return _weights(module) + (_outputs(module) if "bias" in own else 0)


def _weights(module: nn.Module) -> int:
    if module.weight.dim() == 1:
        return _outputs(module)
    inputs = int(module.weight.transpose(0, 1).flatten(1).any(1).sum())
    return _outputs(module) * inputs * module.weight[0, 0].numel()


def _outputs(module: nn.Module) -> int:
    return int(active_outputs(module).sum())


def active_outputs(module: nn.Module) -> Tensor:
    """Which outputs of a layer, or channels of a normalization, are not zero whatever comes in: [outputs] bool."""
    left = module.weight.flatten(1).any(1) if module.weight.dim() > 1 else module.weight != 0
    bias = getattr(module, "bias", None)
    return left if bias is None else left | (bias != 0)
