"""ResNets of any width, with torchvision's parameter names (He et al. 2016, arXiv 1512.03385).

A block's last BatchNorm adds the shortcut, so that distilling its feature map distils the block's output, as in the
official code, which adds shortcuts in place.
"""

from torch import Tensor, nn

from us3l.models.backbones.layers import NormReLU, convolution, initialize, scale_channels


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, width: float) -> None:
        super().__init__()
        channels = scale_channels(planes, width)
        self.conv1 = convolution(inputs, channels, 3, stride)
        self.bn1 = NormReLU(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = NormReLU(channels)
        self.downsample = _downsample(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(x), shortcut)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 (with the stride, as in torchvision) and 1x1 convolutions."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, width: float) -> None:
        super().__init__()
        inner, outer = scale_channels(planes, width), scale_channels(planes * self.expansion, width)
        self.conv1 = convolution(inputs, inner, 1)
        self.bn1 = NormReLU(inner)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.bn2 = NormReLU(inner)
        self.conv3 = convolution(inner, outer, 1)
        self.bn3 = NormReLU(outer)
        self.downsample = _downsample(inputs, outer, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x))
        return self.bn3(self.conv3(x), shortcut)


class ResNet(nn.Module):
    """A network from images [B, C, H, W] to features [B, num_features].

    `planes` and `blocks` describe the stages; every stage but the first halves height and width. `stem` is "cifar" (one
    3x3 convolution) or "imagenet" (7x7 of stride 2, then max-pooling). The submodules `layer1`... hold the stages.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        planes: tuple[int, ...],
        stem: str,
        width: float,
        in_channels: int,
    ) -> None:
        super().__init__()
        channels = scale_channels(planes[0], width)
        if stem == "cifar":
            self.conv1 = convolution(in_channels, channels, 3)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = convolution(in_channels, channels, 7, stride=2)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = NormReLU(channels)
        self.stages = [f"layer{index + 1}" for index in range(len(planes))]
        for stage, count, outputs in zip(self.stages, blocks, planes, strict=True):
            layers = []
            for index in range(count):
                stride = 2 if index == 0 and stage != "layer1" else 1
                layers.append(block(channels, outputs, stride, width))
                channels = scale_channels(outputs * block.expansion, width)
            self.add_module(stage, nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = channels
        initialize(self)

    def feature_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output of each stage, [B, channels, h, w], by its name."""
        x, maps = self.maxpool(self.bn1(self.conv1(x))), {}
        for stage in self.stages:
            maps[stage] = x = self.get_submodule(stage)(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.avgpool(x).flatten(1)
