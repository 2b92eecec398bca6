"""The student: the slimmable network that is trained, and its weights in one flat tensor."""

from dataclasses import dataclass

import torch

from us3l.models.backbones.backbone import Backbone
from us3l.models.batch_norms import BatchNorm, batch_norm_parameters
from us3l.models.heads import build_network
from us3l.models.meta import on_meta_device
from us3l.models.slimmable import Slimmable
from us3l.params.runs import PretrainRun
from us3l.training.flat_parameters import FlatParameters

ENCODER = ("backbone.", "projector.")  # the parts that a student shares with its teacher


@dataclass(frozen=True)
class Student:
    """A slimmable network with its weights; `batch_norms` names the parameters of its BatchNorms."""

    network: Slimmable
    weights: FlatParameters
    batch_norms: tuple[str, ...]

    @property
    def encoder_size(self) -> int:
        """Number of elements of the encoder, whose parameters come first."""
        return sum(shape.numel() for name, shape in self.weights.shapes.items() if name.startswith(ENCODER))


def build_student(run: PretrainRun, backbone: Backbone, classes: int, seed: int, device: torch.device) -> Student:
    """Build the student of a run, with weights as this seed initializes them."""
    widest = run.sampling.widest
    teacher = on_meta_device(lambda: backbone.build(widest))
    slimmable = Slimmable(
        lambda width: build_network(run.method, backbone.build(width), teacher, classes),
        run.sampling.switchable_bn_widths,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initial = slimmable.initial_parameters(widest)
    norms = batch_norm_parameters(slimmable.meta_module(widest), BatchNorm)
    batch_norms = tuple(name for name in initial if name.split("@")[0] in norms)
    return Student(slimmable, FlatParameters(initial, device), batch_norms)
