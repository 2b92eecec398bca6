"""The backbones by name: plain networks that take a width."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from us3l.models.backbones.custom import own_network
from us3l.models.backbones.mobilenet import MobileNetV2
from us3l.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from us3l.models.backbones.vit import VisionTransformer
from us3l.params.backbone import is_own


class Pixels(nn.Module):
    """Images [B, C, H, W] to their pixels [B, C*H*W]: the floor under every learned feature."""

    def __init__(self, width: float, in_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


_PLANES = (64, 128, 256, 512)
_RESNETS = {
    "18": (BasicBlock, (2, 2, 2, 2)),
    "34": (BasicBlock, (3, 4, 6, 3)),
    "50": (Bottleneck, (3, 4, 6, 3)),
    "101": (Bottleneck, (3, 4, 23, 3)),
}
_TRANSFORMERS = {"tiny": (192, 6), "small": (384, 12), "base": (768, 12)}  # size, heads
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "pixels": Pixels,
    "small-resnet": partial(ResNet, BasicBlock, (1, 1, 1), (32, 64, 128), "cifar"),
    **{f"cifar-resnet{depth}": partial(ResNet, *kind, _PLANES, "cifar") for depth, kind in _RESNETS.items()},
    **{f"resnet{depth}": partial(ResNet, *kind, _PLANES, "imagenet") for depth, kind in _RESNETS.items()},
    "cifar-mobilenetv2": partial(MobileNetV2, "cifar"),
    "mobilenetv2": partial(MobileNetV2, "imagenet"),
    **{f"vit-{name}": partial(VisionTransformer, *kind) for name, kind in _TRANSFORMERS.items()},
}


def backbone(name: str, width: float, in_channels: int, sides: Sequence[int] | None = None) -> nn.Module:
    """A plain network for images [B, in_channels, H, W] in [0, 1], normalized; `name` as in params.yaml.

    sides: H and W, from which the `num_features` of a user's own network are counted where it does not say them.
    Raises UserError where a user's own network is not to be had.
    """
    if is_own(name):
        return own_network(name, width, sides and (in_channels, *sides))
    return BACKBONES[name](width=width, in_channels=in_channels)
