"""BatchNorm with what follows it in a residual network, as one layer, so that a GPU can do all of it in one pass."""

from torch import Tensor, nn
from torch.nn import functional as F


class NormReLU(nn.BatchNorm2d):
    """relu(BatchNorm(x) + shortcut); x and shortcut: [B, C, H, W]."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return activated(super().forward(x), shortcut)


class AddReLU(nn.Module):
    """What is left of a NormReLU where a convolution does the normalization."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return activated(x, shortcut)


def activated(x: Tensor, shortcut: Tensor | None) -> Tensor:
    """relu(x + shortcut), in place."""
    return F.relu_(x if shortcut is None else x.add_(shortcut))
