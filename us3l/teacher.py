"""What a student is held against: a momentum encoder's embeddings, a frozen network's, or the student's own, detached.

Whatever the number of processes, the embeddings of a whole batch are those of all its shards, in their order.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from us3l import dino
from us3l.flat import Flat, cut
from us3l.models.heads import Output
from us3l.objectives import ONE_VIEW, Target, in_full, teacher_views
from us3l.params.training import Pretrained
from us3l.queue import Queue
from us3l.slim import Slimmable
from us3l.views import Shard

ENCODER = ("backbone.", "projector.")

Encoder = Callable[[Tensor], Output]  # of images [B, C, H, W]


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
    ) -> None:
        self.run, self.method, self.network, self.online = run, run.method, network, online
        self.reduce, self.frozen = reduce, frozen
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
    def targets(self, shards: Sequence[Shard], width: float, epoch: float) -> list[Target]:
        """What the losses compare with where a network apart is the teacher; nothing where the student is its own."""
        encode = self.frozen or self._momentum_encode(width)
        if encode is None:
            return []
        views = teacher_views(self.method)
        outputs = [[encode((shard.shuffled or shard.views)[view]) for view in views] for shard in shards]
        targets = [self.to_target(shard, given, epoch, views) for shard, given in zip(shards, outputs, strict=True)]
        if shards[0].order is None and "contrastive" not in self.method.losses:
            return targets
        keys = {view: self._gather(targets, view) for view in views}
        if shards[0].order is not None:
            where = shards[0].order.argsort()
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
        return lambda view: self.network(weights, teacher_width, view, None)

    def to_target(self, shard: Shard, outputs: list[Output], epoch: float, views: Sequence[int] = (0, 1)) -> Target:
        """What a teacher's outputs of these views are to the losses."""
        embeddings = in_full(output.projection.detach() for output in outputs)
        return Target(
            embeddings=dict(zip(views, embeddings, strict=False)),
            maps=[[each.detach() for each in output.maps] for output in outputs],
            labels=shard.labels,
            keys={},
            first=shard.number * len(shard.views[0]),
            queue=self.queue and self.queue.values,
            center=self.center,
            sharpness=dino.teacher_temperature(int(epoch), self.method.teacher_temperature),
        )

    def _gather(self, targets: list[Target], view: int) -> Tensor:
        """The teacher's embeddings of a whole batch [N, D], from all processes."""
        rows, dimension = targets[0].embeddings[view].shape
        gathered = targets[0].embeddings[view].new_zeros(rows * self.run.batch.shards, dimension)
        for target in targets:
            gathered[target.first : target.first + rows] = target.embeddings[view]
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
    """Of the embeddings of a whole batch those of a target's shard."""
    count = len(next(iter(target.embeddings.values())))
    return {view: of_batch[target.first : target.first + count] for view, of_batch in keys.items()}
