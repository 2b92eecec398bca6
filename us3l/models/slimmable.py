"""The slimmable network: one copy of weights, whose leading part is a network of any width.

Slicing rule. Where the plain network of width w has a parameter of shape [a, b, ...], its values are W[:a, :b, ...] of
the widest network's W. A network is universally slimmable (US-Nets, arXiv 1903.05134) if it runs so at any width of a
range, with BatchNorm statistics of the batch in training, and of a calibration afterwards ("post-statistics").

Switchable BatchNorms. S-Nets (arXiv 1812.08928) run at a few widths, each with BatchNorms of its own. Their parameters
are kept beside the widest network's, as NAME@WIDTH.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.func import functional_call

from us3l.models.batch_norms import batch_norm_parameters
from us3l.models.ghost_batch_norm import to_ghost_batch_norm
from us3l.models.meta import on_meta_device

Builder = Callable[[float], nn.Module]
Slices = tuple[slice, ...]


def leading_slices(shape: Size) -> Slices:
    """Return the slices that cut a tensor of the widest network to `shape`: the leading part along every axis."""
    return tuple(slice(size) for size in shape)


def narrow(weights: dict[str, Tensor], network: nn.Module) -> nn.Module:
    """Copy the leading slices of `weights` into a plain `network`, and return it: a network to calibrate and ship."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name][leading_slices(parameter.shape)])
    return network


class Slimmable:
    """A slimmable network of any `builder(width) -> nn.Module`.

    It owns no weights: they are passed in by name, so that one copy serves every width, the teacher and the deployed
    network. Widths in `switchable_bn_widths` have switchable BatchNorms in the backbone.
    """

    def __init__(self, builder: Builder, switchable_bn_widths: Collection[float] = ()) -> None:
        self.builder, self.switchable_bn_widths = builder, switchable_bn_widths
        self.groups = 1  # number of groups of images in a forward pass
        self.meta_module = lru_cache(maxsize=256)(self._build_meta_module)
        self._sources = lru_cache(maxsize=256)(self._find_sources)

    def slices(self, width: float) -> dict[str, Slices]:
        """Return by name the slices that cut the widest network's tensors to their shapes at `width`."""
        return dict(self._sources(width).values())

    def __call__(self, weights: dict[str, Tensor], width: float, *inputs: Any, groups: int = 1) -> Any:
        """Run the network of `width` in training mode on weights already cut to that width.

        inputs: the first is [groups * B, ...], and BatchNorms use the statistics of each group. Buffers, such as
        position tables, are moved to its device.
        """
        module, self.groups = self.meta_module(width), groups
        _move_buffers(module, inputs[0].device)
        values = {name: weights[source] for name, (source, _) in self._sources(width).items() if source in weights}
        return functional_call(module, values, inputs)

    def initial_parameters(self, width: float) -> dict[str, Tensor]:
        """Build the parameters of a widest network of `width`, by name: the backbone's, then the others.

        Switchable BatchNorms are initialized as BatchNorms of their widths.
        """
        widest = self.builder(width)
        switchable = {
            f"{name}@{narrower}": parameter
            for narrower in self.switchable_bn_widths
            for name, parameter in batch_norm_parameters(self.builder(narrower), nn.BatchNorm2d).items()
        }
        parameters = dict(widest.named_parameters()) | switchable
        return dict(sorted(parameters.items(), key=lambda item: not item[0].startswith("backbone.")))

    def _find_sources(self, width: float) -> dict[str, tuple[str, Slices]]:
        """Map each parameter of the network of `width` to the name and slices of the weights that it uses.

        Only the backbone's BatchNorms, BatchNorm2d, are switchable: the heads' are not.
        """
        module = self.meta_module(width)
        is_switchable = width in self.switchable_bn_widths
        switchable = batch_norm_parameters(module, nn.BatchNorm2d) if is_switchable else {}
        return {
            name: (f"{name}@{width}" if name in switchable else name, leading_slices(parameter.shape))
            for name, parameter in module.named_parameters()
        }

    def _build_meta_module(self, width: float) -> nn.Module:
        """Build the network on the meta device: only buffers have storage, and BatchNorms track no statistics."""
        network = on_meta_device(lambda: self.builder(width))
        to_ghost_batch_norm(network, lambda: self.groups)
        if names := [name for name, _ in network.named_buffers()]:
            with torch.random.fork_rng(devices=[]):
                real = self.builder(width)
            for name in names:
                _set_buffer(network, name, real.get_buffer(name))
        return network.train()


def switch_batch_norms(weights: dict[str, Tensor], width: float) -> dict[str, Tensor]:
    """Return the weights of plain networks, with the switchable BatchNorms of `width` in place of the widest's."""
    suffix = f"@{width}"
    switched = {name.removesuffix(suffix): value for name, value in weights.items() if name.endswith(suffix)}
    return {name: value for name, value in weights.items() if "@" not in name} | switched


def _move_buffers(network: nn.Module, device: torch.device) -> None:
    for name, buffer in network.named_buffers():
        if buffer.device != device:
            _set_buffer(network, name, buffer.to(device))


def _set_buffer(network: nn.Module, name: str, value: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, value)
