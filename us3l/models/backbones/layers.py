"""Layers that the convolutional backbones share, and the rule for the number of channels at a width."""

from torch import Tensor, nn
from torch.nn import functional as F


def scale_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Round `channels * width` to a multiple of `divisor`, never below 90% of the product (MobileNet's rule)."""
    exact = channels * width
    rounded = max(1, int(exact + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * exact else rounded + divisor


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Build a convolution without bias whose padding keeps the height and width, up to the stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def initialize(network: nn.Module) -> None:
    """Initialize convolutions by He et al. 2015 (arXiv 1502.01852), by the fan-out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class NormReLU(nn.BatchNorm2d):
    """relu(BatchNorm(x) + shortcut); x and shortcut: [B, C, H, W]."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return add_relu(super().forward(x), shortcut)


class AddReLU(nn.Module):
    """relu(x + shortcut): takes the place of a NormReLU whose BatchNorm is folded into a convolution."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return add_relu(x, shortcut)


def add_relu(x: Tensor, shortcut: Tensor | None) -> Tensor:
    """Compute relu(x + shortcut), in place."""
    return F.relu_(x if shortcut is None else x.add_(shortcut))
