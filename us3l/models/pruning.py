"""L1-pruned networks, which narrow ones are compared with (official slimmable_ops.py, PruneRun*).

In each layer, not over all of them, the filters of the smallest l1 norm go, or those whose BatchNorms' weights are the
smallest. The network keeps its shape: what goes is zero.
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
    """The network of full width with these weights, of whose filters the share `kept` is left in every convolution.

    A filter goes with its BatchNorm channel's weight and bias, so that no running statistics let anything through, and
    with the weights that later convolutions have for that channel, where nothing else arrives in it.
    image: one that the network takes, [1, C, H, W].
    Raises UserError where a convolution has no BatchNorm of its own, with weights, after it.
    """
    network = narrow(weights, build(1.0))
    for convolution, norm in _pairs(network):
        norms = convolution.weight.flatten(1) if criterion == "filters" else norm.weight[:, None]
        # The official code rounds the number that goes down, and so do we.
        gone = norms.abs().sum(1).argsort(stable=True)[: int(len(norms) * (1 - kept))]
        for parameter in (convolution.weight, norm.weight, norm.bias):
            parameter.data[gone] = 0
    _cut_silent_inputs(network, image)
    return network


def _pairs(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution, and the BatchNorm on its output, which the backbones register next."""
    layers = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.BatchNorm2d) and module.affine)
    ]
    if not layers or [isinstance(layer, nn.Conv2d) for layer in layers] != [True, False] * (len(layers) // 2):
        raise UserError("l1 pruning needs a network of convolutions, each with a BatchNorm of its own that has weights")
    return list(zip(layers[::2], layers[1::2], strict=True))


@torch.no_grad()
def _cut_silent_inputs(network: nn.Module, image: Tensor) -> None:
    """Zero the weights of input channels that are zero in every image.

    They are found with ones for an image: every BatchNorm sends on ones in the channels that are left, zeros in others.
    """

    def send(norm: nn.BatchNorm2d, inputs: Any, output: Tensor) -> Tensor:
        return sum(inputs[1:], torch.ones_like(output) * active_outputs(norm)[:, None, None])

    def cut(convolution: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        silent = ~inputs[0][0].flatten(1).any(1)
        filters, groups = convolution.out_channels, convolution.groups
        of_filter = silent.view(groups, 1, -1).expand(-1, filters // groups, -1).reshape(filters, -1)
        convolution.weight[of_filter] = 0

    hooks = [
        each
        for one, norm in _pairs(network)
        for each in (one.register_forward_pre_hook(cut), norm.register_forward_hook(send))
    ]
    network.eval()(torch.ones_like(image))
    network.train()
    for hook in hooks:
        hook.remove()


def freeze_pruned_channels(networks: list[nn.Module]) -> None:
    """No gradient reaches BatchNorm channels that are zero: what is cut stays silent where the rest is trained.

    The weights before and after a silent channel get no gradient from it anyway.
    """
    norms = [norm for network in networks for norm in batch_norms(network, nn.BatchNorm2d).values()]
    for norm in norms:
        for parameter in (norm.weight, norm.bias):
            if parameter.requires_grad:
                parameter.register_hook(active_outputs(norm).mul)
