"""A trained run's network as another run's teacher (SEED, arXiv 2101.04731), at its full width."""

import torch
from torch import Tensor, nn

from us3l import checkpoint
from us3l.models import backbone
from us3l.models.heads import Output, projector
from us3l.params.methods import Method
from us3l.plan import RunPlan
from us3l.provenance import require_params, require_place
from us3l.slim import Slimmable, of_width
from us3l.teacher import ENCODER, Encoder


class _Projecting(nn.Module):
    """A backbone and its projector: images [B, C, H, W] to an output without prediction."""

    def __init__(self, backbone: nn.Module, features: int, method: Method) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector(features, method)

    def forward(self, x: Tensor) -> Output:
        projection = self.projector(self.backbone(x))
        return Output(projection, projection, [])


def frozen_teacher(source: RunPlan, seed: int, in_channels: int, device: torch.device) -> tuple[Encoder, str]:
    """What a run of params.yaml learned, as a function of images, and the seal of its checkpoint.

    BatchNorms take the statistics of what they see; the official SEED_MSE takes running ones, which checkpoints here do
    not have. Raises UserError where the checkpoint is absent, or not of this run.
    """
    run, path = source.run, source.checkpoint(seed)
    tensors, about = checkpoint.load(path)
    require_place(path, about, "pretrain", seed=seed)
    require_params(path, about, source.recipe("pretrain"), "pretrain")
    width = run.sampling.widest
    features = tensors["projector.0.weight"].shape[1]
    network = Slimmable(lambda at: _Projecting(backbone(run.backbone, at, in_channels), features, run.method))
    weights = {name: each for name, each in of_width(tensors, width).items() if name.startswith(ENCODER)}
    checkpoint.require_shapes(path, weights, dict(network.skeleton(width).named_parameters()), run.backbone, width)
    weights = {name: each.to(device) for name, each in weights.items()}
    return lambda view: network(weights, width, view), about["seal"]
