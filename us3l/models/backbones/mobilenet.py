"""MobileNetV2 of any width, with the official code's parameter names (Sandler et al. 2018, arXiv 1801.04381)."""

from torch import Tensor, nn

from us3l.models.backbones.layers import convolution, initialize, scale_channels

_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_STRIDES = {"cifar": (1, 1, 1, 2, 2, 1, 2, 1), "imagenet": (2, 1, 2, 2, 2, 1, 2, 1)}


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]


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


class MobileNetV2(nn.Module):
    """A network from images [B, C, H, W] to features [B, 1280], the same number at every width.

    `variant` is "cifar" (height and width divided by 8) or "imagenet" (by 32).
    """

    num_features = 1280

    def __init__(self, variant: str, width: float, in_channels: int) -> None:
        super().__init__()
        stem_stride, *strides = _STRIDES[variant]
        channels = scale_channels(32, width)
        layers: list[nn.Module] = [nn.Sequential(*_conv_bn_relu(in_channels, channels, 3, stem_stride))]
        for (expansion, planes, blocks), first_stride in zip(_STAGES, strides, strict=True):
            for index in range(blocks):
                outputs, stride = scale_channels(planes, width), first_stride if index == 0 else 1
                layers.append(InvertedResidual(channels, outputs, stride, expansion, shortcut=index > 0))
                channels = outputs
        layers.append(nn.Sequential(*_conv_bn_relu(channels, self.num_features, 1)))
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
