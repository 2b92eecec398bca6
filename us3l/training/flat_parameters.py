"""All parameters as views into one flat tensor: optimizer, decay, averaging and all-reduce are one operation each."""

from collections.abc import Iterable

import torch
from torch import Tensor

from us3l.models.slimmable import Slices


class Flat:
    """`values` is a 1-D tensor; a parameter is a view of its own stretch, in the order given."""

    def __init__(self, parameters: dict[str, Tensor], device: torch.device) -> None:
        self.shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self.values = torch.cat([parameter.detach().flatten() for parameter in parameters.values()]).to(device)
        self.trainable = {name for name, parameter in parameters.items() if parameter.requires_grad}
        self.parameters = self.views(self.values)
        self._gradients = torch.empty_like(self.values)

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Each parameter's stretch of a flat buffer, in its own shape; the buffer may end before the last of them."""
        views, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + shape.numel()
            if end > buffer.numel():
                break
            views[name] = buffer[start:end].view(shape)
            start = end
        return views

    def leaves(self, slices: dict[str, Slices]) -> dict[str, Tensor]:
        """Weights cut by `slices`, to be differentiated."""
        leaves = cut(self.parameters, slices)
        return {name: leaf.requires_grad_(name in self.trainable) for name, leaf in leaves.items()}

    def spread(self, packed: Tensor, slices: dict[str, Slices]) -> Tensor:
        """What `pack` made of these slices' gradients, where they belong in the whole [P]; zero everywhere else.

        The next call writes to the same memory.
        """
        views = self.views(self._gradients.zero_())
        places = [views[name][piece] for name, piece in slices.items()]
        for place, part in zip(places, packed.split([place.numel() for place in places]), strict=True):
            place.copy_(part.view(place.shape))
        return self._gradients


def pack(leaves: Iterable[Tensor]) -> Tensor:
    """The leaves' gradients, one after the other, zero where a leaf took no part; the leaves lose theirs."""
    gradients = []
    for leaf in leaves:
        gradients.append(leaf.new_zeros(leaf.numel()) if leaf.grad is None else leaf.grad.flatten())
        leaf.grad = None
    return torch.cat(gradients)


def pairwise_sum(parts: list[Tensor]) -> Tensor:
    """The sum of neighbours, of neighbouring sums, and so on.

    Processes that hold equal stretches of a power of two of parts, and add up their sums in the same way, get the bits
    that one process gets.
    """
    while len(parts) > 1:
        sums = [one + other for one, other in zip(parts[::2], parts[1::2], strict=False)]
        parts = sums + parts[2 * len(sums) :]
    return parts[0]


def cut(weights: dict[str, Tensor], slices: dict[str, Slices]) -> dict[str, Tensor]:
    """The slices, without gradient; convolutions get theirs with the channels last, as the images come."""
    return {name: _laid_out(weights[name].detach()[piece]) for name, piece in slices.items()}


def _laid_out(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last if weight.dim() == 4 else torch.contiguous_format)
