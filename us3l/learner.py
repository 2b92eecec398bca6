"""One training step of US3L (paper, section 3; official workers/ssl.py).

Every width of a step, widest first, does its own backward pass and its own optimizer step. The widest network takes the
base loss against the teacher; the narrower ones take the distillation loss against the same target. The momentum
encoder moves in the widest network's turn, before that turn's optimizer step, and runs at full width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.flat import Flat, cut, pairwise_sum
from us3l.losses import Views, loss
from us3l.models import backbone
from us3l.models.heads import HEADS, Head, Network
from us3l.params import Pretrained
from us3l.regularize import coefficients
from us3l.sgd import sgd_step
from us3l.slim import Slimmable


class Learner:
    """The online network, its teacher and the velocity of SGD.

    `reduce` adds a tensor up over all processes, in place.
    """

    def __init__(
        self, run: Pretrained, in_channels: int, seed: int, device: torch.device, reduce: Callable[[Tensor], None]
    ) -> None:
        self.run, self.method, self.reduce = run, run.method, reduce
        self.widest = run.sampling.range[1]
        builder = lambda width: Network(backbone(run.backbone, width, in_channels), run.method)  # noqa: E731
        self.network = Slimmable(builder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights = dict(builder(self.widest).named_parameters())
        self.flat = Flat(weights, device)
        encoder_size = sum(value.numel() for name, value in weights.items() if "predictor" not in name)
        self.momentum_encoder = self.flat.values[:encoder_size].clone()
        self.velocity = torch.zeros_like(self.flat.values)
        self.used_heads: set[Head] = set()
        self._decays: dict[tuple[int, bool, frozenset[Head]], Tensor] = {}

    def step(self, shards: Sequence[Views], widths: Sequence[float], epoch: int, lr: float) -> Tensor:
        """Train on this process's shards, each two views [B, C, H, W].

        Returns [widths, 2]: the loss without regularizer, and the spread of the embeddings, as this process's share of
        the mean over all shards (their sum over the processes is the mean).
        """
        targets: list[Views] = []
        shares = []
        for width in widths:
            widest = width == widths[0]
            own_target = widest or self.method.distillation is None
            teacher_moves = widest or self.method.momentum_update == "every-width"
            if teacher_moves and self.method.momentum is not None:
                self._move_momentum_encoder(self.method.momentum)
            head: Head = "predictor" if teacher_moves else "distillation_predictor"
            self.used_heads.add(head)
            slices = self.network.slices(width)
            weights = self.flat.leaves(slices)
            gradients, parts = [], []
            for index, views in enumerate(shards):
                with self._precision():
                    projections, predictions = self._both(weights, width, views, head)
                    if own_target:
                        targets[index : index + 1] = [self._target(views, projections, width)]
                name = self.method.base if own_target else self.method.distillation
                value = loss(name, _float(predictions), _float(targets[index]), self.method.temperature)
                value = value / self.run.batch.shards
                value.backward()
                gradients.append(self.flat.collect(weights, slices))
                parts.append(torch.stack((value.detach(), _spread(projections[0]) / self.run.batch.shards)))
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

    def _both(self, weights: dict[str, Tensor], width: float, views: Views, head: Head | None) -> tuple[Views, Views]:
        """Projections and predictions of both views, each view with batch statistics of its own."""
        outputs = [self.network(weights, width, view, head) for view in views]
        projections, predictions = zip(*outputs, strict=True)
        return projections, predictions

    @torch.no_grad()
    def _target(self, views: Views, projections: Views, width: float) -> Views:
        """What the losses compare with: the momentum encoder's projections, or the online ones, detached."""
        if self.method.momentum is None:
            return projections[0].detach(), projections[1].detach()
        teacher_width = self.widest if self.method.distillation else width
        encoder = self.flat.views(self.momentum_encoder)
        slices = {name: piece for name, piece in self.network.slices(teacher_width).items() if name in encoder}
        return self._both(cut(encoder, slices), teacher_width, views, None)[0]

    def _move_momentum_encoder(self, momentum: float) -> None:
        self.momentum_encoder.lerp_(self.flat.values[: len(self.momentum_encoder)], 1 - momentum)

    def _update(self, gradients: Tensor, width: float, epoch: int, lr: float) -> None:
        """One SGD step on the whole of the weights, whatever the width."""
        self.reduce(gradients)
        gradients.addcmul_(self._decay(epoch, width == 1.0), self.flat.values)
        sgd_step(self.flat.values, gradients, self.velocity, lr, self.run.optimizer.momentum)

    def _decay(self, epoch: int, full_width: bool) -> Tensor:
        """The decay of each element [P], made once an epoch."""
        key = epoch, full_width, frozenset(self.used_heads)
        if key not in self._decays:
            this_epoch = {known: decay for known, decay in self._decays.items() if known[0] == epoch}
            self._decays = this_epoch | {key: self._decay_of(*key)}
        return self._decays[key]

    def _decay_of(self, epoch: int, full_width: bool, used_heads: frozenset[Head]) -> Tensor:
        """The decay of each element [P].

        Weight decay spares a head that has had no gradient yet, as SGD does in PyTorch; the regularizer's penalty is a
        gradient, so it spares none. Frozen parameters do not move.
        """
        run, flat = self.run, self.flat
        if run.regularizer:
            penalty = coefficients(flat.shapes, run.regularizer, epoch, run.epochs, full_width)
            strengths = {name: 2 * strength for name, strength in penalty.items()}
        else:
            unused = tuple(f"{head}." for head in HEADS if head not in used_heads)
            strengths = {
                name: torch.tensor(0.0 if name.startswith(unused) else run.optimizer.weight_decay)
                for name in flat.shapes
            }
        decay = torch.zeros_like(flat.values)
        for name, view in flat.views(decay).items():
            if name in flat.trainable:
                view.copy_(strengths[name].expand(view.shape))
        return decay

    def _precision(self) -> torch.autocast:
        bfloat16 = self.run.precision == "bfloat16"
        return torch.autocast(self.flat.values.device.type, dtype=torch.bfloat16, enabled=bfloat16)


def _float(views: Views) -> Views:
    """Losses are computed in the weights' precision or in float32, never in bfloat16."""
    return tuple(view.float() if view.dtype == torch.bfloat16 else view for view in views)


def _spread(embeddings: Tensor) -> Tensor:
    """How far normalized embeddings [B, D] spread: 1 when they fill the sphere evenly, 0 when they have collapsed.

    The mean over dimensions of the standard deviation, times sqrt(D) (SimSiam, arXiv 2011.10566, section 4.1).
    """
    normalized = F.normalize(embeddings.detach().float(), dim=1)
    return normalized.std(0).mean() * embeddings.shape[1] ** 0.5
