"""The pretrained network: a backbone with the heads whose outputs the losses read.

Only the inputs of the projector, the classifier and the feature projections depend on the width; the heads' other
layers are never slimmed.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, cast

from torch import Tensor, nn
from torch.nn import functional as F

from us3l.models.batch_norms import batch_norms
from us3l.params.method import Method
from us3l.params.schema import suggestion
from us3l.utils.errors import UserError

Head = Literal["predictor", "distillation_predictor"]


class Output(NamedTuple):
    """The outputs for one view: projection and prediction [B, D], and a feature map [B, c, h, w] per distilled layer.

    In a supervised network both projection and prediction are the logits [B, classes].
    """

    projection: Tensor
    prediction: Tensor
    maps: list[Tensor]

    def chunk(self, count: int) -> list["Output"]:
        """Split into the outputs of `count` equal parts of the images."""
        projections, predictions = self.projection.chunk(count), self.prediction.chunk(count)
        maps = zip(*(each.chunk(count) for each in self.maps), strict=True) if self.maps else [()] * count
        return [Output(*each[:2], list(each[2])) for each in zip(projections, predictions, maps, strict=True)]


def build_network(method: Method, backbone: nn.Module, teacher: nn.Module, classes: int) -> nn.Module:
    """Build the trained network of one width: it maps images [B, C, H, W] and a `Head` or None to an `Output`.

    teacher: a backbone of the teacher's width, of which only the shapes are read.
    """
    if method.name == "supervised":
        return SupervisedNetwork(backbone, classes)
    if method.name == "moco-v3" and hasattr(backbone, "patch_embed"):
        backbone.patch_embed.requires_grad_(False)
    return Network(backbone, method, teacher)


class SupervisedNetwork(nn.Module):
    """A backbone and a linear classifier."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(_num_features(backbone), classes)

    def forward(self, x: Tensor, head: Head | None) -> Output:
        logits = self.classifier(self.backbone(x))
        return Output(logits, logits, [])


class Network(nn.Module):
    """A backbone with a projector and predictors; without a head the prediction is the projection.

    The distillation head exists even where no width uses it, as in the official code.
    SimCLR, MoCo and SEED predict with the projection itself; SimCLR's own distillation head is what the official code
    calls predictor. SimSiam without momentum teacher has one predictor for all widths; with one it has BYOL's heads.
    """

    def __init__(self, backbone: nn.Module, method: Method, teacher: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector(_num_features(backbone), method)
        self.predictor = predictor(method) if method.predicts else nn.Identity()
        own_head = method.distillation_loss and method.distillation_head == "separate" and method.heads != "simsiam"
        self.distillation_predictor = predictor(method) if own_head else self.predictor
        self.layers = method.feature_distillation.layers if method.feature_distillation else []
        self.feature_projections = nn.ModuleList(
            nn.Conv2d(output_channels(backbone, layer), output_channels(teacher, layer), 1, bias=False)
            for layer in self.layers
        )
        self._maps: dict[str, Tensor] = {}
        for layer in self.layers:
            backbone.get_submodule(layer).register_forward_hook(self._store_map(layer))

    def forward(self, x: Tensor, head: Head | None) -> Output:
        projection = self.projector(self.backbone(x))
        prediction = self.get_submodule(head)(projection) if head else projection
        return Output(projection, prediction, [self._maps.pop(layer) for layer in self.layers])

    def _store_map(self, layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """Return a hook that keeps a layer's output, which an in-place ReLU still changes, as in the official code."""
        return lambda module, inputs, output: self._maps.__setitem__(layer, output)


def project_maps(weights: dict[str, Tensor], maps: list[Tensor]) -> list[Tensor]:
    """Project feature maps [B, c, h, w] to the teacher's channels by the 1x1 convolutions `feature_projections`."""
    return [F.conv2d(each, weights[f"feature_projections.{index}.weight"]) for index, each in enumerate(maps)]


def _num_features(backbone: nn.Module) -> int:
    return cast(int, backbone.num_features)  # the stub allows Tensor and Module only


def output_channels(backbone: nn.Module, layer: str) -> int:
    """Return the number of channels of a layer's output.

    Raises UserError where the backbone has no such layer, or the layer no BatchNorm.
    """
    module = dict(backbone.named_modules()).get(layer)
    norms = list(batch_norms(module, nn.BatchNorm2d).values()) if module else []
    if not norms:
        known = [name for name, each in backbone.named_modules() if name and batch_norms(each, nn.BatchNorm2d)]
        raise UserError(
            f"method.feature_distillation.layers: the backbone has no layer {layer!r} with a BatchNorm; "
            f"{suggestion(layer, known)}"
        )
    return norms[-1].num_features


def projector(features: int, method: Method) -> nn.Sequential:
    """Build a projector, [B, features] to [B, output]: three layers, or MoCo v2's two without BatchNorm.

    SimSiam's and MoCo v3's end in a BatchNorm without scale and shift. SimSiam's bias before it cannot change the
    output: it is a frozen parameter, as in the official code.
    """
    hidden, output = method.projector.hidden, method.projector.output
    if method.name == "moco":
        return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, output))
    biased = method.name != "moco-v3"
    layers = [
        nn.Linear(features, hidden, bias=biased),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, bias=method.name == "simclr"),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, output, bias=biased),
    ]
    if method.heads == "simsiam":
        layers[-1].bias.requires_grad_(False)
    if method.heads in ("simsiam", "moco-v3"):
        layers.append(nn.BatchNorm1d(output, affine=False))
    return nn.Sequential(*layers)


def predictor(method: Method) -> nn.Sequential:
    """Build a predictor of two layers on [B, output]; MoCo v3's ends in a BatchNorm without scale and shift."""
    hidden, output = method.projector.hidden, method.projector.output
    layers = [
        nn.Linear(output, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, output, bias=method.name != "moco-v3"),
    ]
    if method.name == "moco-v3":
        layers.append(nn.BatchNorm1d(output, affine=False))
    return nn.Sequential(*layers)
