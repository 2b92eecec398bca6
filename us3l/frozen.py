"""A trained run's network as another run's teacher (SEED, arXiv 2101.04731), at its full width."""

import torch
from torch import Tensor, nn

from us3l import checkpoint
from us3l.models import backbone
from us3l.models.heads import Network, Output
from us3l.params.training import is_own
from us3l.passes import Encoder, one_by_one
from us3l.plan import RunPlan
from us3l.provenance import require_params, require_place
from us3l.slim import Slimmable, of_width
from us3l.teacher import ENCODER


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

    def build(at: float) -> nn.Module:
        network = backbone(run.backbone, at, in_channels)
        network.num_features = features
        return Network(network, run.method, teacher=network)

    network = Slimmable(build)
    weights = {name: each for name, each in of_width(tensors, width).items() if name.startswith(ENCODER)}
    parameters = dict(network.skeleton(width).named_parameters())
    encoder = {name: each for name, each in parameters.items() if name.startswith(ENCODER)}
    checkpoint.require_shapes(path, weights, encoder, run.backbone, width)
    weights = {name: each.to(device) for name, each in weights.items()}

    def encode(images: Tensor, groups: int) -> Output:
        return network(weights, width, images, None, groups=groups)

    return one_by_one(encode) if is_own(run.backbone) else encode, about["seal"]
