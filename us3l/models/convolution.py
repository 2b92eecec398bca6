"""What the convolutional networks share: their layer, and how it is initialized."""

from torch import nn


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A layer without bias that keeps the sides of the image, divided by the stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def initialize(network: nn.Module) -> None:
    """He et al. 2015 (arXiv 1502.01852), by the number of outputs."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
