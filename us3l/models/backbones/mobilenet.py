"""MobileNets of any width, with the parameter names of the official code and of US-Nets (arXiv 1903.05134).

V1: Howard et al. 2017 (arXiv 1704.04861), with ReLU6. V2: Sandler et al. 2018 (arXiv 1801.04381).
"""

from torch import Tensor, nn

from us3l.models.backbones.layers import convolution, initialize, scale_channels

_V1_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
_V1_STRIDES = {"cifar": (1, 1, 1, 2, 2, 2), "imagenet": (2, 1, 2, 2, 2, 2)}
_V2_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_V2_STRIDES = {"cifar": (1, 1, 1, 2, 2, 1, 2, 1), "imagenet": (2, 1, 2, 2, 2, 1, 2, 1)}


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3 convolution, then a 1x1 convolution to `outputs` channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        depthwise = _conv_bn_relu(inputs, inputs, 3, stride, groups=inputs)
        self.body = nn.Sequential(*depthwise, *_conv_bn_relu(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion * inputs` channels, depthwise 3x3 convolution, 1x1 convolution to `outputs`.

    The caller decides about the shortcut: numbers of channels that are equal at one width may differ at full width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, shortcut: bool) -> None:
        super().__init__()
        hidden = expansion * inputs
        expand = _conv_bn_relu(inputs, hidden, 1) if expansion > 1 else []
        depthwise = _conv_bn_relu(hidden, hidden, 3, stride, groups=hidden)
        self.body = nn.Sequential(*expand, *depthwise, convolution(hidden, outputs, 1), nn.BatchNorm2d(outputs))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).add_(x) if self.shortcut else self.body(x)


class MobileNet(nn.Module):
    """A network of `layers`, the last of which has `num_features` channels: [B, C, H, W] to [B, num_features]."""

    def __init__(self, layers: list[nn.Module], num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.avgpool(self.features(x)).flatten(1)

    def feature_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the last map of each resolution, [B, channels, h, w], by the layer's name."""
        by_height: dict[int, tuple[str, Tensor]] = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            by_height[x.shape[2]] = f"features.{index}", x
        return dict(by_height.values())


class MobileNetV1(MobileNet):
    """A network from images [B, C, H, W] to features [B, 1024 times the width].

    `variant` is "cifar" (height and width divided by 8) or "imagenet" (by 32).
    """

    def __init__(self, variant: str, width: float, in_channels: int) -> None:
        stem_stride, *strides = _V1_STRIDES[variant]
        channels = scale_channels(32, width)
        layers: list[nn.Module] = [nn.Sequential(*_conv_bn_relu(in_channels, channels, 3, stem_stride))]
        for (planes, blocks), first_stride in zip(_V1_STAGES, strides, strict=True):
            for index in range(blocks):
                outputs, stride = scale_channels(planes, width), first_stride if index == 0 else 1
                layers.append(DepthwiseSeparable(channels, outputs, stride))
                channels = outputs
        super().__init__(layers, channels)


class MobileNetV2(MobileNet):
    """A network from images [B, C, H, W] to features [B, 1280], the same number at every width.

    `variant` is "cifar" (height and width divided by 8) or "imagenet" (by 32).
    """

    def __init__(self, variant: str, width: float, in_channels: int) -> None:
        stem_stride, *strides = _V2_STRIDES[variant]
        channels = scale_channels(32, width)
        layers: list[nn.Module] = [nn.Sequential(*_conv_bn_relu(in_channels, channels, 3, stem_stride))]
        for (expansion, planes, blocks), first_stride in zip(_V2_STAGES, strides, strict=True):
            for index in range(blocks):
                outputs, stride = scale_channels(planes, width), first_stride if index == 0 else 1
                layers.append(InvertedResidual(channels, outputs, stride, expansion, shortcut=index > 0))
                channels = outputs
        layers.append(nn.Sequential(*_conv_bn_relu(channels, 1280, 1)))
        super().__init__(layers, 1280)
