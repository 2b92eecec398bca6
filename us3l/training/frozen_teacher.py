"""A trained run's network as another run's teacher (SEED, arXiv 2101.04731), at its full width."""

from pathlib import Path

import torch
from torch import Tensor, nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.heads import Network, Output
from us3l.models.slimmable import Slimmable, switch_batch_norms
from us3l.params.runs import PretrainRun
from us3l.training.micro_batches import Encoder, one_by_one
from us3l.training.student import ENCODER
from us3l.utils import checkpoint


def frozen_teacher(
    run: PretrainRun, backbone: Backbone, path: Path, tensors: dict[str, Tensor], device: torch.device
) -> Encoder:
    """Return the encoder that `run` trained; `tensors`: its checkpoint, read from `path`.

    BatchNorms use batch statistics; the official SEED_MSE uses running ones, which checkpoints here do not have.
    Raises UserError where the tensors are not of the run's architecture.
    """
    width = run.sampling.widest
    features = tensors["projector.0.weight"].shape[1]

    def build(at: float) -> nn.Module:
        network = backbone.build(at)
        network.num_features = features  # type: ignore[assignment]  # the stub allows Tensor and Module only
        return Network(network, run.method, teacher=network)

    network = Slimmable(build)
    weights = {name: each for name, each in switch_batch_norms(tensors, width).items() if name.startswith(ENCODER)}
    parameters = dict(network.meta_module(width).named_parameters())
    encoder = {name: each for name, each in parameters.items() if name.startswith(ENCODER)}
    checkpoint.require_shapes(path, weights, encoder, run.backbone, width)
    weights = {name: each.to(device) for name, each in weights.items()}

    def encode(images: Tensor, groups: int) -> Output:
        of_dtype = {name: each.to(images.dtype) for name, each in weights.items()}  # no copies where it is theirs
        return network(of_dtype, width, images, None, groups=groups)

    return encode if backbone.separates_groups else one_by_one(encode)
