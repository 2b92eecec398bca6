"""All parameters as views into one flat tensor: optimizer, decay, averaging and all-reduce are one operation each."""

from collections.abc import Iterable

import torch
from torch import Tensor

from us3l.models.slimmable import Slices


class FlatParameters:
    """Parameters by name, each a view of its own stretch of `values` [P], in the order given."""

    def __init__(self, parameters: dict[str, Tensor], device: torch.device) -> None:
        self.shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self.values = torch.cat([parameter.detach().flatten() for parameter in parameters.values()]).to(device)
        self.trainable = {name for name, parameter in parameters.items() if parameter.requires_grad}
        self.parameters = self.views(self.values)
        self._gradients = torch.empty_like(self.values)

    @property
    def sizes(self) -> list[int]:
        """Number of elements of each parameter."""
        return [shape.numel() for shape in self.shapes.values()]

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """View a flat buffer as parameters by name; it may hold only the first ones."""
        views, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + shape.numel()
            if end > buffer.numel():
                break
            views[name] = buffer[start:end].view(shape)
            start = end
        return views

    def leaves(self, slices: dict[str, Slices]) -> dict[str, Tensor]:
        """Cut the weights by `slices`, as leaves to differentiate by."""
        leaves = cut(self.parameters, slices)
        return {name: leaf.requires_grad_(name in self.trainable) for name, leaf in leaves.items()}

    def scatter_grads(self, packed: Tensor, slices: dict[str, Slices]) -> Tensor:
        """Scatter the gradients that `pack_grads` packed for these slices into [P], zero elsewhere.

        The next call writes to the same memory.
        """
        views = self.views(self._gradients.zero_())
        places = [views[name][each] for name, each in slices.items()]
        for place, part in zip(places, packed.split([place.numel() for place in places]), strict=True):
            place.copy_(part.view(place.shape))
        return self._gradients


def pack_grads(leaves: Iterable[Tensor]) -> Tensor:
    """Concatenate the gradients of leaves, zero where a leaf has none, and reset them."""
    gradients = []
    for leaf in leaves:
        gradients.append(leaf.new_zeros(leaf.numel()) if leaf.grad is None else leaf.grad.flatten())
        leaf.grad = None
    return torch.cat(gradients)


def pairwise_sum(parts: list[Tensor]) -> Tensor:
    """Sum neighbours, then neighbouring sums, and so on.

    Processes that each hold an equal share of a power of two of parts, and sum up their results in the same way, get
    the bits that one process gets.
    """
    while len(parts) > 1:
        sums = [one + other for one, other in zip(parts[::2], parts[1::2], strict=False)]
        parts = sums + parts[2 * len(sums) :]
    return parts[0]


def cut(weights: dict[str, Tensor], slices: dict[str, Slices]) -> dict[str, Tensor]:
    """Copy the slices, without gradient; convolutions are laid out with the channels last, as images are."""
    return {name: _laid_out(weights[name].detach()[each]) for name, each in slices.items()}


def _laid_out(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last if weight.dim() == 4 else torch.contiguous_format)
