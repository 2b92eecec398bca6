"""The network that is pretrained: a backbone, and the heads through which the losses see it.

Only the projector's and the feature projections' inputs follow the width; the heads' own layers are never slimmed.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.func import functional_call

from us3l.errors import UserError
from us3l.params.training import Method

Head = Literal["predictor", "distillation_predictor", "feature_projections"]
HEADS: tuple[Head, ...] = get_args(Head)


class Output(NamedTuple):
    """Of one view: projection and prediction [B, method.output], and a feature map [B, c, h, w] of each layer asked."""

    projection: Tensor
    prediction: Tensor
    maps: list[Tensor]


class Network(nn.Module):
    """Images [B, C, H, W] to a projection and, through the head asked for, a prediction.

    Without a head the prediction is the projection.
    SimCLR predicts with the projection itself; its own distillation head is what the official code calls predictor.
    SimSiam has one predictor for all widths. `teacher` is a backbone of the teacher's width, for its shapes alone.
    """

    def __init__(self, backbone: nn.Module, method: Method, teacher: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector(backbone.num_features, method)
        self.predictor = nn.Identity() if method.name == "simclr" else predictor(method)
        own_head = method.distillation and method.distillation_head == "own" and method.name != "simsiam"
        self.distillation_predictor = predictor(method) if own_head else self.predictor
        self.layers = method.features.layers if method.features else []
        self.feature_projections = nn.ModuleList(
            nn.Conv2d(channels(backbone, layer), channels(teacher, layer), 1, bias=False) for layer in self.layers
        )
        self._maps: dict[str, Tensor] = {}
        for layer in self.layers:
            backbone.get_submodule(layer).register_forward_hook(self._keeper(layer))

    def forward(self, x: Tensor, head: Head | None) -> Output:
        projection = self.projector(self.backbone(x))
        prediction = self.get_submodule(head)(projection) if head else projection
        return Output(projection, prediction, [self._maps.pop(layer) for layer in self.layers])

    def _keeper(self, layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """Keeps a layer's output, as an activation in place leaves it: after a BatchNorm's ReLU, as officially."""
        return lambda module, inputs, output: self._maps.__setitem__(layer, output)


def project(network: Network, weights: dict[str, Tensor], maps: list[Tensor]) -> list[Tensor]:
    """Feature maps [B, c, h, w] with the channels of the teacher's, by 1x1 convolutions of these weights."""
    return [
        functional_call(convolution, {"weight": weights[f"feature_projections.{index}.weight"]}, each)
        for index, (convolution, each) in enumerate(zip(network.feature_projections, maps, strict=True))
    ]


def channels(backbone: nn.Module, layer: str) -> int:
    """How many channels leave a layer. Raises UserError where the backbone has no such layer, or it no BatchNorm."""
    module = dict(backbone.named_modules()).get(layer)
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)] if module else []
    if not norms:
        raise UserError(
            f"method.features.layers: the backbone has no layer {layer!r} with a BatchNorm, as layer2 is one"
        )
    return norms[-1].num_features


def projector(features: int, method: Method) -> nn.Sequential:
    """Three layers, [B, features] to [B, method.output]; SimSiam's ends in a BatchNorm without scale and shift.

    The bias before that BatchNorm cannot change the output: it stays a parameter, frozen, as in the official code.
    """
    layers = [
        nn.Linear(features, method.hidden),
        nn.BatchNorm1d(method.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(method.hidden, method.hidden, bias=method.name == "simclr"),
        nn.BatchNorm1d(method.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(method.hidden, method.output),
    ]
    if method.name == "simsiam":
        layers[-1].bias.requires_grad_(False)
        layers.append(nn.BatchNorm1d(method.output, affine=False))
    return nn.Sequential(*layers)


def predictor(method: Method) -> nn.Sequential:
    """Two layers, [B, method.output] to the same."""
    return nn.Sequential(
        nn.Linear(method.output, method.hidden, bias=False),
        nn.BatchNorm1d(method.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(method.hidden, method.output),
    )
