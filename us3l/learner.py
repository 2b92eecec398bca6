"""One training step of US3L (paper, section 3; official workers/ssl.py).

Every width of a step, widest first, does its own backward pass and its own optimizer step. The widest network takes the
base loss against the teacher; the narrower ones take the distillation loss against the same target. The momentum
encoder moves in the widest network's turn, before that turn's optimizer step, and runs at full width.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.feature_losses import FEATURE_LOSSES
from us3l.flat import Flat, cut, pairwise_sum
from us3l.losses import loss
from us3l.models import backbone
from us3l.models.blueprint import blueprint
from us3l.models.heads import HEADS, Head, Network, Output, project
from us3l.params.training import Pretrained
from us3l.regularize import add_gradient, batch_norm_names, coefficients
from us3l.sgd import sgd_step
from us3l.slim import Slimmable
from us3l.views import Views

ENCODER = ("backbone.", "projector.")
PROJECTIONS = "feature_projections."


class Target(NamedTuple):
    """What a student is held against: embeddings of both views, and feature maps of each."""

    embeddings: Views
    maps: list[list[Tensor]]


class Learner:
    """The online network, its teacher and the velocity of SGD.

    `reduce` adds a tensor up over all processes, in place.
    """

    def __init__(
        self, run: Pretrained, in_channels: int, seed: int, device: torch.device, reduce: Callable[[Tensor], None]
    ) -> None:
        self.run, self.method, self.reduce = run, run.method, reduce
        self.widest = run.sampling.range[1]
        teacher = blueprint(lambda: backbone(run.backbone, self.widest, in_channels))
        builder = lambda width: Network(backbone(run.backbone, width, in_channels), run.method, teacher)  # noqa: E731
        self.network = Slimmable(builder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights = dict(builder(self.widest).named_parameters())
        self.flat = Flat(weights, device)
        self.batch_norms = batch_norm_names(self.network.skeleton(self.widest))
        encoder_size = sum(value.numel() for name, value in weights.items() if name.startswith(ENCODER))
        self.momentum_encoder = self.flat.values[:encoder_size].clone()
        self.velocity = torch.zeros_like(self.flat.values)
        self.used_heads: set[Head] = set()
        self._known: dict[tuple[int, bool, frozenset[Head]], Tensor] = {}

    def step(self, shards: Sequence[Views], widths: Sequence[float], epoch: int, lr: float) -> Tensor:
        """Train on this process's shards, each two views [B, C, H, W].

        Returns [widths, 2]: the loss without regularizer, and the spread of the embeddings, as this process's share of
        the mean over all shards (their sum over the processes is the mean).
        """
        targets: list[Target] = []
        shares = []
        for width in widths:
            widest = width == widths[0]
            own_target = widest or self.method.distillation is None
            teacher_moves = widest or self.method.momentum_update == "every-width"
            if teacher_moves and self.method.momentum is not None:
                self._move_momentum_encoder(self.method.momentum)
            head: Head = "predictor" if teacher_moves else "distillation_predictor"
            self.used_heads |= {head} if own_target else {head, "feature_projections"}
            slices = self.network.slices(width)
            weights = self.flat.leaves(slices)
            gradients, parts = [], []
            for index, views in enumerate(shards):
                with self._precision():
                    outputs = self._both(weights, width, views, head)
                    if own_target:
                        targets[index : index + 1] = [self._target(views, outputs, width)]
                    else:
                        outputs = [self._project(weights, width, output) for output in outputs]
                value = self._loss(outputs, targets[index], own_target) / self.run.batch.shards
                value.backward()
                gradients.append(self.flat.collect(weights, slices))
                parts.append(torch.stack((value.detach(), _spread(outputs[0].projection) / self.run.batch.shards)))
            shares.append(pairwise_sum(parts))
            self._update(pairwise_sum(gradients), width, epoch, lr)
        return torch.stack(shares)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        return {
            "values": self.flat.values,
            "velocity": self.velocity,
            "momentum_encoder": self.momentum_encoder,
            "used_heads": torch.tensor([head in self.used_heads for head in HEADS]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self.flat.values.copy_(state["values"])
        self.momentum_encoder.copy_(state["momentum_encoder"])
        self.velocity.copy_(state["velocity"])
        self.used_heads = {head for head, used in zip(HEADS, state["used_heads"].tolist(), strict=True) if used}

    def _both(self, weights: dict[str, Tensor], width: float, views: Views, head: Head | None) -> list[Output]:
        """The outputs of both views, each view with batch statistics of its own."""
        return [self.network(weights, width, view, head) for view in views]

    @torch.no_grad()
    def _target(self, views: Views, outputs: list[Output], width: float) -> Target:
        """What the losses compare with: the momentum encoder's outputs, or the online ones, detached."""
        if self.method.momentum is not None:
            teacher_width = self.widest if self.method.distillation else width
            encoder = self.flat.views(self.momentum_encoder)
            slices = {name: piece for name, piece in self.network.slices(teacher_width).items() if name in encoder}
            outputs = self._both(cut(encoder, slices), teacher_width, views, None)
        one, other = ([each.detach() for each in (output.projection, *output.maps)] for output in outputs)
        return Target((one[0], other[0]), [one[1:], other[1:]])

    def _project(self, weights: dict[str, Tensor], width: float, output: Output) -> Output:
        return output._replace(maps=project(self.network.skeleton(width), weights, output.maps))

    def _loss(self, outputs: list[Output], target: Target, own_target: bool) -> Tensor:
        """The base loss of a network against its own target, the distillation losses of the others."""
        method = self.method
        student = _float(output.prediction for output in outputs)
        name = method.base if own_target else method.distillation
        value = loss(name, student, _float(target.embeddings), method)
        if own_target:
            return value
        value = method.distillation_strength * value
        if method.features:
            maps, teacher = ([_float(each) for each in both] for both in ([o.maps for o in outputs], target.maps))
            value = value + method.features.strength * FEATURE_LOSSES[method.features.loss](maps, teacher)
        return value

    def _move_momentum_encoder(self, momentum: float) -> None:
        self.momentum_encoder.lerp_(self.flat.values[: len(self.momentum_encoder)], 1 - momentum)

    def _update(self, gradients: Tensor, width: float, epoch: int, lr: float) -> None:
        """One SGD step on the whole of the weights, whatever the width."""
        self.reduce(gradients)
        strengths = self._strengths(epoch, width == 1.0)
        if self.run.regularizer:
            add_gradient(gradients, strengths, self.flat.values, self.run.regularizer)
        else:
            gradients.addcmul_(strengths, self.flat.values)
        sgd_step(self.flat.values, gradients, self.velocity, lr, self.run.optimizer.momentum)

    def _strengths(self, epoch: int, full_width: bool) -> Tensor:
        """How strongly each element [P] is drawn to zero, made once an epoch."""
        key = epoch, full_width, frozenset(self.used_heads)
        if key not in self._known:
            this_epoch = {known: strengths for known, strengths in self._known.items() if known[0] == epoch}
            self._known = this_epoch | {key: self._strengths_of(*key)}
        return self._known[key]

    def _strengths_of(self, epoch: int, full_width: bool, used_heads: frozenset[Head]) -> Tensor:
        """The regularizer's coefficient or the weight decay of each element [P].

        Weight decay spares a head that has had no gradient yet, as SGD does in PyTorch; the regularizer's penalty is a
        gradient, so it spares no head, but for the feature projections. Frozen parameters do not move.
        """
        run, flat = self.run, self.flat
        if run.regularizer:
            penalized = {name: shape for name, shape in flat.shapes.items() if not name.startswith(PROJECTIONS)}
            settings = run.regularizer, epoch, run.epochs, full_width, self.batch_norms
            strengths = coefficients(penalized, *settings)
        else:
            unused = tuple(f"{head}." for head in HEADS if head not in used_heads)
            strengths = {
                name: torch.tensor(0.0 if name.startswith(unused) else run.optimizer.weight_decay)
                for name in flat.shapes
            }
        result = torch.zeros_like(flat.values)
        for name, view in flat.views(result).items():
            if name in flat.trainable and name in strengths:
                view.copy_(strengths[name].expand(view.shape))
        return result

    def _precision(self) -> torch.autocast:
        bfloat16 = self.run.precision == "bfloat16"
        return torch.autocast(self.flat.values.device.type, dtype=torch.bfloat16, enabled=bfloat16)


def _float(views: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Losses are computed in the weights' precision or in float32, never in bfloat16."""
    return tuple(view.float() if view.dtype == torch.bfloat16 else view for view in views)


def _spread(embeddings: Tensor) -> Tensor:
    """How far normalized embeddings [B, D] spread: 1 when they fill the sphere evenly, 0 when they have collapsed.

    The mean over dimensions of the standard deviation, times sqrt(D) (SimSiam, arXiv 2011.10566, section 4.1).
    """
    normalized = F.normalize(embeddings.detach().float(), dim=1)
    return normalized.std(0).mean() * embeddings.shape[1] ** 0.5
