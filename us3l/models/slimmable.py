"""A slimmable network is a plain network plus slicing."""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from us3l.models.ghost_batch_norm import keep_apart
from us3l.models.meta import blueprint

Builder = Callable[[float], nn.Module]
Slices = tuple[slice, ...]


class Slimmable:
    """Any `builder(width) -> nn.Module` made universally slimmable.

    The weights of width w are the leading slices, along every axis, of the widest network's weights. Nothing here owns
    weights: they are passed in by name, so that one copy serves every width, the teacher and the deployed network.
    Widths in `switchable_bn_widths` have BatchNorms of their own in the backbone, named NAME@WIDTH (S-Nets, arXiv
    1812.08928).
    """

    def __init__(self, builder: Builder, switchable_bn_widths: Collection[float] = ()) -> None:
        self.builder, self.switchable_bn_widths = builder, switchable_bn_widths
        self.groups = 1  # of images that are in a forward pass
        self.skeleton = lru_cache(maxsize=256)(self._skeleton)
        self._slices = lru_cache(maxsize=256)(self._slices_of)

    def initial(self, width: float) -> dict[str, Tensor]:
        """Weights as they are initialized, by name: the backbone's of the widest network, then the others."""
        widest = self.builder(width)
        own = {
            f"{name}@{narrower}": p
            for narrower in self.switchable_bn_widths
            for name, p in _norms(self.builder(narrower)).items()
        }
        weights = dict(widest.named_parameters()) | own
        return dict(sorted(weights.items(), key=lambda item: not item[0].startswith("backbone.")))

    def slices(self, width: float) -> dict[str, Slices]:
        """For each name the slices that cut the widest network's tensor to its shape at `width`."""
        return dict(self._slices(width).values())

    def _skeleton(self, width: float) -> nn.Module:
        """The network's code and shapes; only buffers have storage, and BatchNorms know batch statistics only."""
        network = blueprint(lambda: self.builder(width))
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                keep_apart(module, lambda: self.groups)
        if names := [name for name, _ in network.named_buffers()]:
            with torch.random.fork_rng(devices=[]):
                real = self.builder(width)
            for name in names:
                _set_buffer(network, name, real.get_buffer(name))
        return network.train()

    def _slices_of(self, width: float) -> dict[str, tuple[str, Slices]]:
        """By the names of the network of `width`: whose weights it takes, and which part of them."""
        network = self.skeleton(width)
        own = _norms(network) if width in self.switchable_bn_widths else {}
        return {
            name: (f"{name}@{width}" if name in own else name, tuple(slice(size) for size in parameter.shape))
            for name, parameter in network.named_parameters()
        }

    def __call__(self, weights: dict[str, Tensor], width: float, *inputs: Any, groups: int = 1) -> Any:
        """Run the network of `width` in training mode on weights already cut to that width.

        Its buffers, such as tables of positions, go where the first input is, [groups * B, ...]: BatchNorms take the
        statistics of each group.
        """
        skeleton, self.groups = self.skeleton(width), groups
        _move_buffers(skeleton, inputs[0].device)
        values = {name: weights[source] for name, (source, _) in self._slices(width).items() if source in weights}
        return functional_call(skeleton, values, inputs)


def of_width(weights: dict[str, Tensor], width: float) -> dict[str, Tensor]:
    """Weights with the BatchNorms that belong to `width` in the place of the widest network's; without the others."""
    own = {name.removesuffix(f"@{width}"): value for name, value in weights.items() if name.endswith(f"@{width}")}
    return {name: value for name, value in weights.items() if "@" not in name} | own


def _norms(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of BatchNorms over images: those of the backbone, not those of the heads."""
    return {
        f"{path}.{name}": parameter
        for path, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, parameter in module.named_parameters()
    }


def narrow(weights: dict[str, Tensor], network: nn.Module) -> nn.Module:
    """Copy the leading slices of `weights` into a plain `network`, and return it: a network to calibrate and ship."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name][tuple(slice(size) for size in parameter.shape)])
    return network


def _move_buffers(network: nn.Module, device: torch.device) -> None:
    for name, buffer in network.named_buffers():
        if buffer.device != device:
            _set_buffer(network, name, buffer.to(device))


def _set_buffer(network: nn.Module, name: str, value: Tensor) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(network.get_submodule(owner), own_name, value)
