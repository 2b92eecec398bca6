"""The network that is pretrained: a backbone, and the heads through which the losses see it.

Only the projector's input follows the width; the heads' own layers are never slimmed.
"""

from typing import Literal, get_args

from torch import Tensor, nn

from us3l.params import Method

Head = Literal["predictor", "distillation_predictor"]
HEADS: tuple[Head, ...] = get_args(Head)


class Network(nn.Module):
    """Images [B, C, H, W] to a projection and, through the head asked for, a prediction: both [B, method.output].

    Without a head the prediction is the projection.
    SimCLR predicts with the projection itself; its own distillation head is what the official code calls predictor.
    SimSiam has one predictor for all widths.
    """

    def __init__(self, backbone: nn.Module, method: Method) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector(backbone.num_features, method)
        self.predictor = nn.Identity() if method.name == "simclr" else predictor(method)
        own_head = method.distillation and method.distillation_head == "own" and method.name != "simsiam"
        self.distillation_predictor = predictor(method) if own_head else self.predictor

    def forward(self, x: Tensor, head: Head | None) -> tuple[Tensor, Tensor]:
        projection = self.projector(self.backbone(x))
        return projection, self.get_submodule(head)(projection) if head else projection


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
