"""Layers that hold the weights of full width, and slice the leading channels in every forward pass."""

from torch import Tensor, nn
from torch.nn import functional as F

from us3l.models.backbones.layers import NormReLU, add_relu, scale_channels


class SlicedConv2d(nn.Module):
    def __init__(self, full: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.stride, self.padding, self.width = full.weight, full.stride, full.padding, 1.0

    def forward(self, x: Tensor) -> Tensor:
        outputs = scale_channels(len(self.weight), self.width)
        return F.conv2d(x, self.weight[:outputs, : x.shape[1]], None, self.stride, self.padding)


class SlicedBatchNorm(nn.Module):
    """BatchNorm by the statistics of the batch."""

    def __init__(self, full: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = full.weight, full.bias

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.batch_norm(x, None, None, self.weight[:channels], self.bias[:channels], training=True)


class SlicedNormReLU(SlicedBatchNorm):
    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return add_relu(super().forward(x), shortcut)


class SlicedLinear(nn.Module):
    """Linear layer with all outputs, sliced to the number of input features."""

    bias: nn.Parameter | None

    def __init__(self, full: nn.Linear) -> None:
        super().__init__()
        self.weight = full.weight
        self.register_parameter("bias", full.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[:, : x.shape[1]], self.bias)


SLICED = {
    nn.Conv2d: SlicedConv2d,
    nn.BatchNorm2d: SlicedBatchNorm,
    NormReLU: SlicedNormReLU,
    nn.BatchNorm1d: SlicedBatchNorm,
    nn.Linear: SlicedLinear,
}


def sliced(network: nn.Module) -> nn.Module:
    """Replace each layer of a network of full width, in place; parameters keep their names."""
    for name, child in network.named_children():
        setattr(network, name, SLICED[type(child)](child) if type(child) in SLICED else sliced(child))
    return network


def set_width(network: nn.Module, width: float) -> None:
    for module in network.modules():
        if isinstance(module, SlicedConv2d):
            module.width = width
