"""L1-pruned networks, the baseline of narrow ones (official slimmable_ops.py, PruneRun*).

Each layer for itself loses the filters of the smallest l1 norm, or those with the smallest BatchNorm weights. The
network keeps its shape: pruned filters are zero.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from us3l.models.batch_norms import batch_norms
from us3l.models.complexity import active_outputs
from us3l.models.slimmable import narrow
from us3l.utils.errors import UserError


def prune(
    weights: dict[str, Tensor],
    build: Callable[[float], nn.Module],
    kept: float,
    criterion: Literal["filters", "batch-norm"],
    image: Tensor,
) -> nn.Module:
    """Build the network of full width with these weights, and keep the share `kept` of the filters of each convolution.

    A filter is zeroed with its BatchNorm channel's weight and bias, so that the channel is zero whatever the running
    statistics, and with the weights of later convolutions for that channel, where no shortcut adds to it.
    image: one that the network accepts, [1, C, H, W].
    Raises UserError where a convolution is not followed by a BatchNorm of its own with weights.
    """
    network = narrow(weights, build(1.0))
    for convolution, norm in _pairs(network):
        norms = convolution.weight.flatten(1) if criterion == "filters" else norm.weight[:, None]
        # The number of pruned filters is rounded down, as in the official code.
        pruned = norms.abs().sum(1).argsort(stable=True)[: int(len(norms) * (1 - kept))]
        for parameter in (convolution.weight, norm.weight, norm.bias):
            parameter.data[pruned] = 0
    _zero_silent_inputs(network, image)
    return network


def _pairs(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution with the BatchNorm on its output, which the backbones register next."""
    layers = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.BatchNorm2d) and module.affine)
    ]
    if not layers or [isinstance(layer, nn.Conv2d) for layer in layers] != [True, False] * (len(layers) // 2):
        raise UserError("l1 pruning needs a network of convolutions, each with a BatchNorm of its own that has weights")
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    return list(zip(convolutions, norms, strict=True))


@torch.no_grad()
def _zero_silent_inputs(network: nn.Module, image: Tensor) -> None:
    """Zero the weights for input channels that are zero for every image.

    They are found by an image of ones: each BatchNorm outputs ones in the remaining channels and zeros in the others.
    """

    def mark_channels(norm: nn.BatchNorm2d, inputs: Any, output: Tensor) -> Tensor:
        return sum(inputs[1:], torch.ones_like(output) * active_outputs(norm.weight, norm.bias)[:, None, None])

    def zero_weights(convolution: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        silent = ~inputs[0][0].flatten(1).any(1)
        filters, groups = convolution.out_channels, convolution.groups
        of_filter = silent.view(groups, 1, -1).expand(-1, filters // groups, -1).reshape(filters, -1)
        convolution.weight[of_filter] = 0

    hooks = [
        each
        for one, norm in _pairs(network)
        for each in (one.register_forward_pre_hook(zero_weights), norm.register_forward_hook(mark_channels))
    ]
    network.eval()(torch.ones_like(image))
    network.train()
    for hook in hooks:
        hook.remove()


def freeze_pruned_channels(networks: list[nn.Module]) -> None:
    """Block the gradient of BatchNorm channels that are zero, so that they stay zero in training.

    The weights before and after such a channel get no gradient from it anyway.
    """
    norms = [norm for network in networks for norm in batch_norms(network, nn.BatchNorm2d).values()]
    for norm in norms:
        for parameter in (norm.weight, norm.bias):
            if parameter.requires_grad:
                parameter.register_hook(active_outputs(norm.weight, norm.bias).mul)
