"""What a student is held against: a momentum encoder's embeddings, a frozen network's, or the student's own, detached.

Whatever the number of processes, the embeddings of a whole batch are those of all its shards, in their order.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.data.stream import Shard
from us3l.losses import dino
from us3l.losses.registry import ONE_VIEW, Target, in_full, teacher_views
from us3l.models.backbones.registry import backbone
from us3l.models.heads import Network, Output
from us3l.models.slimmable import Slimmable, of_width
from us3l.params.backbone import is_own
from us3l.params.runs import Pretrained
from us3l.training.flat_parameters import Flat, cut
from us3l.training.micro_batches import Encoder, Passes, one_by_one
from us3l.utils import checkpoint

ENCODER = ("backbone.", "projector.")


class Teacher:
    """The momentum encoder of a run's online network where it has one, else the frozen one, else none.

    `reduce` adds a tensor up over all processes, in place.
    """

    def __init__(
        self,
        run: Pretrained,
        network: Slimmable,
        online: Flat,
        seed: int,
        reduce: Callable[[Tensor], None],
        frozen: Encoder | None,
        passes: Passes,
    ) -> None:
        self.run, self.method, self.network, self.online = run, run.method, network, online
        self.reduce, self.frozen, self.passes = reduce, frozen, passes
        self.momentum_encoder = online.values[: _encoder_size(online)].clone() if self.moves else None
        device, method = online.values.device, run.method
        self.queue = Queue(method.queue, method.output, seed, device) if method.queue else None
        self.center = torch.zeros(1, method.output, device=device) if "dino" in method.losses else None

    @property
    def moves(self) -> bool:
        """Whether it is a momentum encoder."""
        return self.method.momentum is not None

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        state = {"momentum_encoder": self.momentum_encoder, "center": self.center}
        if self.queue:
            state |= {"queue": self.queue.values, "queue_position": self.queue.position}
        return {name: tensor for name, tensor in state.items() if tensor is not None}

    @torch.no_grad()
    def targets(self, pieces: Sequence[Sequence[Shard]], width: float, epoch: float) -> list[Target]:
        """What each piece is compared with where a network apart teaches; nothing where the student teaches itself."""
        encode = self.frozen or self._momentum_encode(width)
        if encode is None:
            return []
        views = teacher_views(self.method)
        targets = []
        for piece in pieces:
            seen = [[(shard.shuffled or shard.views)[view] for shard in piece] for view in views]
            targets.append(self.to_target(piece, self.passes.outputs(encode, seen), epoch, views))
        order = pieces[0][0].order
        if order is None and "contrastive" not in self.method.losses:
            return targets
        keys = {view: self._gather(targets, view) for view in views}
        if order is not None:
            where = order.argsort()
            keys = {view: gathered[where] for view, gathered in keys.items()}
        return [target._replace(keys=keys, embeddings=_rows(keys, target)) for target in targets]

    def _momentum_encode(self, width: float) -> Encoder | None:
        """The momentum encoder, at full width where it teaches narrower networks; None where the method has none."""
        if not self.moves:
            return None
        teacher_width = self.run.sampling.widest if self.method.distillation else width
        encoder = self.online.views(self.momentum_encoder)
        slices = {name: piece for name, piece in self.network.slices(teacher_width).items() if name in encoder}
        weights = cut(encoder, slices)
        return lambda images, groups: self.network(weights, teacher_width, images, None, groups=groups)

    def to_target(
        self, piece: Sequence[Shard], outputs: list[Output], epoch: float, views: Sequence[int] = (0, 1)
    ) -> Target:
        """What a teacher's outputs of these views are to the losses."""
        embeddings = [output.projection.detach().unflatten(0, (len(piece), -1)) for output in outputs]
        return Target(
            embeddings=dict(zip(views, in_full(embeddings), strict=False)),
            maps=[[each.detach() for each in output.maps] for output in outputs],
            labels=None if piece[0].labels is None else torch.stack([shard.labels for shard in piece]),
            keys={},
            first=piece[0].number * len(piece[0].views[0]),
            queue=self.queue and self.queue.values,
            center=self.center,
            sharpness=dino.teacher_temperature(int(epoch), self.method.teacher_temperature),
        )

    def _gather(self, targets: list[Target], view: int) -> Tensor:
        """The teacher's embeddings of a whole batch [N, D], from all processes."""
        known = [target.embeddings[view].flatten(0, 1) for target in targets]
        gathered = known[0].new_zeros(self.run.batch.size, known[0].shape[1])
        for target, rows in zip(targets, known, strict=True):
            gathered[target.first : target.first + len(rows)] = rows
        self.reduce(gathered)
        return gathered

    @torch.no_grad()
    def remember(self, targets: list[Target]) -> None:
        """Keep of the embeddings of a step what later steps compare with."""
        if self.queue:
            name = "queue" if "queue" in self.method.losses else "queue-soft-labels"
            self.queue.push(self._gather(targets, ONE_VIEW[name][0]))
        if self.center is not None:
            both = self._gather(targets, 0), self._gather(targets, 1)
            self.center.copy_(dino.next_center(self.center, both))

    def move(self, epoch: float) -> None:
        """Move the momentum encoder, where there is one, towards the online network.

        On a cosine schedule it comes to rest at the end of the training (MoCo v3, arXiv 2104.02057, section 5).
        """
        if not self.moves:
            return
        step = 1 - self.method.momentum
        if self.method.momentum_schedule == "cosine":
            step *= (1 + math.cos(math.pi * epoch / self.run.epochs)) / 2
        self.momentum_encoder.lerp_(self.online.values[: len(self.momentum_encoder)], step)


def _encoder_size(online: Flat) -> int:
    """How many elements the encoder has: they come first."""
    return sum(shape.numel() for name, shape in online.shapes.items() if name.startswith(ENCODER))


def _rows(keys: dict[int, Tensor], target: Target) -> dict[int, Tensor]:
    """Of the embeddings of a whole batch those of a target's shards."""
    shards, images, _ = next(iter(target.embeddings.values())).shape
    mine = slice(target.first, target.first + shards * images)
    return {view: of_batch[mine].unflatten(0, (shards, images)) for view, of_batch in keys.items()}


class Queue:
    """The teacher's latest embeddings, of norm 1: `values` [K, D], random at first. The oldest go first."""

    def __init__(self, size: int, dimension: int, seed: int, device: torch.device) -> None:
        noise = torch.randn(size, dimension, generator=torch.Generator().manual_seed(seed))
        self.values = F.normalize(noise.to(device, torch.get_default_dtype()), dim=1)
        self.position = torch.zeros(1, dtype=torch.long)  # of the oldest

    def push(self, embeddings: Tensor) -> None:
        """Put [N, D] in the place of the oldest N; N divides K."""
        begin = int(self.position)
        self.values[begin : begin + len(embeddings)] = F.normalize(embeddings, dim=1)
        self.position.add_(len(embeddings)).remainder_(len(self.values))


def frozen_teacher(
    run: Pretrained, path: Path, tensors: dict[str, Tensor], in_channels: int, device: torch.device
) -> Encoder:
    """What a run learned, as a function of images: `tensors` are those of its checkpoint, which lies at `path`.

    BatchNorms take the statistics of what they see; the official SEED_MSE takes running ones, which checkpoints here do
    not have. Raises UserError where they are not of the run's architecture.
    """
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

    return one_by_one(encode) if is_own(run.backbone) else encode
