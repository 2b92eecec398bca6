"""A slimmable network is a plain network plus slicing."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from us3l.models.blueprint import blueprint

Builder = Callable[[float], nn.Module]
Slices = tuple[slice, ...]


class Slimmable:
    """Any `builder(width) -> nn.Module` made universally slimmable.

    The weights of width w are the leading slices, along every axis, of the widest network's weights. Nothing here owns
    weights: they are passed in by name, so that one copy serves every width, the teacher and the deployed network.
    """

    def __init__(self, builder: Builder) -> None:
        self.skeleton = lru_cache(maxsize=256)(lambda width: _skeleton(builder, width))

    def slices(self, width: float) -> dict[str, Slices]:
        """For each parameter name the slices that cut the widest network's tensor to its shape at `width`."""
        return {
            name: tuple(slice(size) for size in parameter.shape)
            for name, parameter in self.skeleton(width).named_parameters()
        }

    def __call__(self, weights: dict[str, Tensor], width: float, *inputs: Any) -> Any:
        """Run the network of `width` in training mode on weights already cut to that width.

        Its buffers, such as tables of positions, go where the first input is.
        """
        skeleton = self.skeleton(width)
        buffers = {name: buffer.to(inputs[0].device) for name, buffer in skeleton.named_buffers()}
        return functional_call(skeleton, buffers | weights, inputs)


def narrow(weights: dict[str, Tensor], network: nn.Module) -> nn.Module:
    """Copy the leading slices of `weights` into a plain `network`, and return it: a network to calibrate and ship."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name][tuple(slice(size) for size in parameter.shape)])
    return network


def _skeleton(builder: Builder, width: float) -> nn.Module:
    """The network's code and shapes; only buffers have storage, and BatchNorms know batch statistics only."""
    network = blueprint(lambda: builder(width))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    if names := [name for name, _ in network.named_buffers()]:
        with torch.random.fork_rng(devices=[]):
            real = builder(width)
        for name in names:
            owner, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(owner), own_name, real.get_buffer(name))
    return network.train()
