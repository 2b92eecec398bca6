"""One training step of US3L (paper, section 3; official workers/ssl.py).

Every width of a step, widest first, does its own backward pass and its own optimizer step. The widest network takes the
base loss against the teacher; the narrower ones take the distillation loss against the same target. The momentum
encoder moves in the widest network's turn, before that turn's optimizer step, and runs at full width.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.data.stream import Shard
from us3l.losses.feature_maps import FEATURE_LOSSES
from us3l.losses.registry import Target, in_full, loss, student_views
from us3l.models.backbones.registry import backbone
from us3l.models.heads import Head, Output, network, project
from us3l.models.meta import blueprint
from us3l.models.slimmable import Slimmable
from us3l.params.runs import Pretrained
from us3l.training.flat_parameters import Flat, pack, pairwise_sum
from us3l.training.micro_batches import Encoder, Passes, passes_on
from us3l.training.optimizers import SGD, AdamW
from us3l.training.regularizer import add_gradient, batch_norm_names, coefficients
from us3l.training.teacher import Teacher

PROJECTIONS = "feature_projections."


class Learner:
    """The online network, its teacher, and what the optimizer keeps.

    `reduce` adds a tensor up over all processes, in place. `frozen` is the teacher of a method that names one. sides: H
    and W of the images, which a user's own network may need; passes: how the images go through the networks, by
    default what suits the device.
    """

    def __init__(
        self,
        run: Pretrained,
        in_channels: int,
        classes: int,
        seed: int,
        device: torch.device,
        reduce: Callable[[Tensor], None],
        frozen: Encoder | None = None,
        sides: Sequence[int] | None = None,
        passes: Passes | None = None,
    ) -> None:
        self.run, self.method, self.reduce = run, run.method, reduce
        self.passes = passes or passes_on(device, run)
        widest = run.sampling.widest
        plain = partial(backbone, run.backbone, in_channels=in_channels, sides=sides)
        teacher = blueprint(lambda: plain(widest))
        builder = lambda width: network(run.method, plain(width), teacher, classes)  # noqa: E731
        self.network = Slimmable(builder, run.sampling.own_norms)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights = self.network.initial(widest)
        self.flat = Flat(weights, device)
        norms = batch_norm_names(self.network.skeleton(widest))
        self.batch_norms = [name for name in weights if name.split("@")[0] in norms]
        sizes = [shape.numel() for shape in self.flat.shapes.values()]
        optimizer = {"sgd": SGD, "adamw": AdamW}[run.optimizer.kind]
        self.optimizer = optimizer(run.optimizer, self.flat.values, sizes)
        self.moving: set[str] = set()  # the parameters that have had a gradient
        self.teacher = Teacher(run, self.network, self.flat, seed, reduce, frozen, self.passes)
        self._strengths_of_epoch: dict[tuple[int, bool, int], tuple[Tensor, set[str]]] = {}

    def step(self, shards: Sequence[Shard], widths: Sequence[float], epoch: float, lr: float) -> Tensor:
        """Train on this process's shards. epoch: how many are done, and the done part of this one.

        Returns [widths, 2]: the loss without regularizer, and the spread of the embeddings, as this process's share of
        the mean over all shards (their sum over the processes is the mean).
        """
        pieces = self.passes.pieces(shards)
        shares, targets, of_widest = [], [], []
        for width in widths:
            own_target = width == widths[0] or self.method.distillation is None
            has_base_head = width == widths[0] or self.method.momentum_update == "every-width"
            if has_base_head:
                self.teacher.move(epoch)
            if own_target:
                with self._precision():
                    targets = self.teacher.targets(pieces, width, epoch)
            head: Head = "predictor" if has_base_head else "distillation_predictor"
            gradients, share = self._backward(pieces, width, head, targets, own_target, epoch)
            self._update(gradients, width, epoch, lr)
            shares.append(share)
            of_widest = of_widest or targets
        self.teacher.remember(of_widest)
        return torch.stack(shares)

    def _backward(
        self,
        pieces: Sequence[Sequence[Shard]],
        width: float,
        head: Head,
        targets: list[Target],
        own_target: bool,
        epoch: float,
    ) -> tuple[Tensor, Tensor]:
        """The gradients [P] of one width, over all processes, and this one's share of loss and spread [2].

        Where the student is its own teacher, this adds the missing targets.
        """
        slices = self.network.slices(width)
        weights = self.flat.leaves(slices)
        gradients, parts = [], []
        for index, piece in enumerate(pieces):
            with self._precision():
                outputs = self._student(piece, weights, width, head, own_target)
                if len(targets) == index:
                    targets.append(self.teacher.to_target(piece, outputs, epoch))
            share = len(piece) / self.run.batch.shards
            value = self._loss(outputs, targets[index], own_target, len(piece)) * share
            value.backward()
            self.moving |= {name for name, leaf in weights.items() if leaf.grad is not None}
            gradients.append(pack(weights.values()))
            projections = outputs[0].projection.unflatten(0, (len(piece), -1))
            parts.append(torch.stack((value.detach(), _spread(projections) * share)))
        packed = pairwise_sum(gradients)
        self.reduce(packed)
        return self.flat.spread(packed, slices), pairwise_sum(parts)

    def _student(
        self, piece: Sequence[Shard], weights: dict[str, Tensor], width: float, head: Head, own_target: bool
    ) -> list[Output]:
        """What the network of a width makes of each view that its losses look at."""
        views = [[shard.views[view] for shard in piece] for view in self._student_views(own_target)]
        encode = lambda images, groups: self.network(weights, width, images, head, groups=groups)  # noqa: E731
        outputs = self.passes.outputs(encode, views)
        if not self.method.features or own_target:
            return outputs
        skeleton = self.network.skeleton(width)
        return [output._replace(maps=project(skeleton, weights, output.maps)) for output in outputs]

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        return {
            "values": self.flat.values,
            "moving": torch.tensor([name in self.moving for name in self.flat.shapes]),
            **self.optimizer.state,
            **self.teacher.state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self._strengths_of_epoch = {}
        self.moving = {name for name, moves in zip(self.flat.shapes, state["moving"].tolist(), strict=True) if moves}

    def strengths_of(self, epoch: int, full_width: bool) -> tuple[Tensor, set[str]]:
        """The regularizer's coefficient or the weight decay of each element [P].

        Weight decay spares a parameter that has had no gradient yet, as SGD does in PyTorch; the regularizer's penalty
        is a gradient, so it spares none, but for the feature projections. Frozen parameters do not move.
        """
        run, flat = self.run, self.flat
        if run.regularizer:
            penalized = {name: shape for name, shape in flat.shapes.items() if not name.startswith(PROJECTIONS)}
            settings = run.regularizer, epoch, run.epochs, full_width, self.batch_norms
            strengths = coefficients(penalized, *settings)
        else:
            strengths = {name: torch.tensor(run.optimizer.weight_decay) for name in self.moving}
        strengths = {name: strengths[name] for name in flat.trainable if name in strengths and strengths[name].any()}
        result = torch.zeros_like(flat.values)
        for name, view in flat.views(result).items():
            if name in strengths:
                view.copy_(strengths[name].expand(view.shape))
        return result, set(strengths)

    def _student_views(self, own_target: bool) -> range:
        if own_target:
            return student_views(self.method.base)
        return range(2) if self.method.features else student_views(self.method.distillation)

    def _loss(self, outputs: list[Output], target: Target, own_target: bool, shards: int) -> Tensor:
        """The base loss of a network against its own target, the distillation losses of the others."""
        method = self.method
        student = in_full(output.prediction.unflatten(0, (shards, -1)) for output in outputs)
        if own_target:
            return loss(method.base, student, target, method)
        value = method.distillation_strength * loss(method.distillation, student, target, method)
        if method.features:
            maps, teacher = ([in_full(each) for each in both] for both in ([o.maps for o in outputs], target.maps))
            value = value + method.features.strength * FEATURE_LOSSES[method.features.loss](maps, teacher)
        return value

    def _update(self, gradients: Tensor, width: float, epoch: float, lr: float) -> None:
        """One step of the optimizer on the whole of the weights, whatever the width."""
        strengths, drawn = self._strengths(int(epoch), width == 1.0)
        decay = None if self.run.regularizer else strengths
        if self.run.regularizer:
            add_gradient(gradients, strengths, self.flat.values, self.run.regularizer)
            self.moving |= drawn
        moving = [index for index, name in enumerate(self.flat.shapes) if name in self.moving]
        self.optimizer.step(self.flat.values, gradients, decay, lr, moving)

    def _strengths(self, epoch: int, full_width: bool) -> tuple[Tensor, set[str]]:
        """How strongly each element [P] is drawn to zero, and which parameters are; made once an epoch."""
        key = epoch, full_width, len(self.moving)
        if key not in self._strengths_of_epoch:
            this_epoch = {
                known: strengths for known, strengths in self._strengths_of_epoch.items() if known[0] == epoch
            }
            self._strengths_of_epoch = this_epoch | {key: self.strengths_of(epoch, full_width)}
        return self._strengths_of_epoch[key]

    def _precision(self) -> torch.autocast:
        bfloat16 = self.run.precision == "bfloat16"
        return torch.autocast(self.flat.values.device.type, dtype=torch.bfloat16, enabled=bfloat16)


def _spread(embeddings: Tensor) -> Tensor:
    """How far normalized embeddings [S, B, D] spread: 1 when they fill the sphere evenly, 0 when they have collapsed.

    The mean over shards and dimensions of the standard deviation, times sqrt(D) (SimSiam, arXiv 2011.10566, section
    4.1).
    """
    normalized = F.normalize(embeddings.detach().float(), dim=2)
    return normalized.std(1).mean() * embeddings.shape[2] ** 0.5
