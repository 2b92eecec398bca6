"""Names of backbones in params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from us3l.params.schema import Matching
from us3l.utils.source import is_custom

Backbone = Literal[
    "small-resnet",
    "cifar-resnet18",
    "cifar-resnet34",
    "cifar-resnet50",
    "cifar-resnet101",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "cifar-mobilenetv1",
    "mobilenetv1",
    "cifar-mobilenetv2",
    "mobilenetv2",
    "vit-tiny",
    "vit-small",
    "vit-base",
]
_IDENTIFIER = r"[A-Za-z_]\w{0,99}"
CustomNetwork = Annotated[
    str,
    Matching(
        rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}",
        "module:function, a module of this folder and a function of the width that is a torch.nn.Module",
    ),
]


def _custom_or_built_in(backbone: Any) -> str:
    return "own" if is_custom(str(backbone)) else "known"


# A built-in name, or module:function, a user's own function of the width; see us3l/models/backbones/custom.py.
AnyBackbone = Annotated[
    Annotated[Backbone, Tag("known")] | Annotated[CustomNetwork, Tag("own")], Discriminator(_custom_or_built_in)
]
BackboneOrPixels = Annotated[
    Annotated[Literal[Backbone, "pixels"], Tag("known")] | Annotated[CustomNetwork, Tag("own")],
    Discriminator(_custom_or_built_in),
]
