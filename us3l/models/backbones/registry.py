"""Built-in backbones by name: plain networks that take a width and a number of image channels."""

from collections.abc import Callable
from functools import partial

from torch import nn

from us3l.models.backbones.mobilenet import MobileNetV1, MobileNetV2
from us3l.models.backbones.pixels import Pixels
from us3l.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from us3l.models.backbones.vit import VisionTransformer

_PLANES = (64, 128, 256, 512)
_RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "18": (BasicBlock, (2, 2, 2, 2)),
    "34": (BasicBlock, (3, 4, 6, 3)),
    "50": (Bottleneck, (3, 4, 6, 3)),
    "101": (Bottleneck, (3, 4, 23, 3)),
}
_TRANSFORMERS = {"tiny": (192, 6), "small": (384, 12), "base": (768, 12)}  # size, heads
BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "pixels": Pixels,
    "small-resnet": partial(ResNet, BasicBlock, (1, 1, 1), (32, 64, 128), "cifar"),
    **{f"cifar-resnet{depth}": partial(ResNet, *kind, _PLANES, "cifar") for depth, kind in _RESNETS.items()},
    **{f"resnet{depth}": partial(ResNet, *kind, _PLANES, "imagenet") for depth, kind in _RESNETS.items()},
    "cifar-mobilenetv1": partial(MobileNetV1, "cifar"),
    "mobilenetv1": partial(MobileNetV1, "imagenet"),
    "cifar-mobilenetv2": partial(MobileNetV2, "cifar"),
    "mobilenetv2": partial(MobileNetV2, "imagenet"),
    **{f"vit-{name}": partial(VisionTransformer, *kind) for name, kind in _TRANSFORMERS.items()},
}
# Height and width that leave a pixel to the last layer, for networks that take images of any size.
SMALLEST_IMAGES = {
    name: 8 if name.startswith(("small", "cifar")) else 32
    for name in BUILT_IN
    if name != "pixels" and not name.startswith("vit")
}
