"""The teacher: a momentum encoder, a frozen network, or the student itself.

Whatever the number of processes, the embeddings of a whole batch are those of all its shards, in their order.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from us3l.losses import dino
from us3l.losses.registry import ONE_VIEW, Target, at_least_float32, teacher_views
from us3l.models.heads import Output
from us3l.params.runs import PretrainRun
from us3l.training.flat_parameters import cut
from us3l.training.lr_schedule import cosine
from us3l.training.micro_batches import Encoder, MicroBatch, MicroBatching
from us3l.training.queue import Queue
from us3l.training.student import Student


class Teacher:
    """Makes the targets of a student: by its momentum encoder, by a frozen encoder, or from its own outputs.

    all_reduce_: adds a tensor up over all processes, in place; queue: the embeddings of earlier steps, for a method
    that has a queue; frozen: the encoder of a method that names a teacher.
    """

    def __init__(
        self,
        run: PretrainRun,
        student: Student,
        micro_batching: MicroBatching,
        all_reduce_: Callable[[Tensor], None],
        queue: Queue | None,
        frozen: Encoder | None,
    ) -> None:
        self.run, self.method, self.student = run, run.method, student
        self.micro_batching, self.all_reduce_, self.queue, self.frozen = micro_batching, all_reduce_, queue, frozen
        weights, is_momentum_encoder = student.weights.values, run.method.momentum is not None
        self.momentum_encoder = weights[: student.encoder_size].clone() if is_momentum_encoder else None
        has_center = "dino" in run.method.losses
        self.center = torch.zeros(1, run.method.projector.output, device=weights.device) if has_center else None

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the next step depends on, by name."""
        state = {"momentum_encoder": self.momentum_encoder, "center": self.center}
        if self.queue:
            state |= {"queue": self.queue.values, "queue_position": self.queue.position}
        return {name: tensor for name, tensor in state.items() if tensor is not None}

    def update_momentum_encoder(self, epoch: float) -> None:
        """Move the momentum encoder, where the method has one, towards the student: k <- m k + (1 - m) q.

        On a cosine schedule it comes to rest at the end of the training (MoCo v3, arXiv 2104.02057, section 5).
        """
        momentum = self.method.momentum
        if self.momentum_encoder is None or momentum is None:
            return
        step = 1 - momentum
        if self.method.momentum_schedule == "cosine":
            step *= cosine(epoch / self.run.epochs)
        self.momentum_encoder.lerp_(self.student.weights.values[: len(self.momentum_encoder)], step)

    @torch.no_grad()
    def targets(self, micro_batches: Sequence[MicroBatch], width: float, epoch: float) -> list[Target]:
        """Return the target of each micro-batch for students of `width`; none where the student teaches itself."""
        encoder = self.frozen or self._momentum_encode(width)
        if encoder is None:
            return []
        views = teacher_views(self.method)
        targets = []
        for micro_batch in micro_batches:
            seen = [[(shard.shuffled or shard.views)[view] for shard in micro_batch] for view in views]
            targets.append(self.to_target(micro_batch, self.micro_batching.encode(encoder, seen), epoch, views))
        order = micro_batches[0][0].order
        if order is None and "contrastive" not in self.method.losses:
            return targets
        keys = {view: self._gather(targets, view) for view in views}
        if order is not None:
            unshuffled = order.argsort()
            keys = {view: gathered[unshuffled] for view, gathered in keys.items()}
        return [target._replace(keys=keys, embeddings=_rows(keys, target)) for target in targets]

    def to_target(
        self, micro_batch: MicroBatch, outputs: list[Output], epoch: float, views: Sequence[int] = (0, 1)
    ) -> Target:
        """Return a target made of a teacher's outputs for these views of a micro-batch."""
        embeddings = [output.projection.detach().unflatten(0, (len(micro_batch), -1)) for output in outputs]
        first = micro_batch[0]
        labels = [shard.labels for shard in micro_batch if shard.labels is not None]
        return Target(
            embeddings=dict(zip(views, at_least_float32(embeddings), strict=False)),
            maps=[[each.detach() for each in output.maps] for output in outputs],
            labels=torch.stack(labels) if labels else None,
            keys={},
            offset=first.number * len(first.views[0]),
            queue=None if self.queue is None else self.queue.values,
            center=self.center,
            teacher_temperature=dino.teacher_temperature(int(epoch), self.method.teacher_temperature),
        )

    @torch.no_grad()
    def remember(self, targets: list[Target]) -> None:
        """Keep what later steps compare with: the queue of embeddings (MoCo), their centre (DINO)."""
        if self.queue:
            name = "queue" if "queue" in self.method.losses else "queue-soft-labels"
            self.queue.enqueue(self._gather(targets, ONE_VIEW[name][0]))
        if self.center is not None:
            both = self._gather(targets, 0), self._gather(targets, 1)
            self.center.copy_(dino.next_center(self.center, both))

    def _momentum_encode(self, width: float) -> Encoder | None:
        """Return the momentum encoder, at full width where it teaches narrower networks; None without one."""
        if self.momentum_encoder is None:
            return None
        network = self.student.network
        teacher_width = self.run.sampling.widest if self.method.distillation_loss else width
        encoder = self.student.weights.views(self.momentum_encoder)
        slices = {name: each for name, each in network.slices(teacher_width).items() if name in encoder}
        weights = cut(encoder, slices)
        return lambda images, groups: network(weights, teacher_width, images, None, groups=groups)

    def _gather(self, targets: list[Target], view: int) -> Tensor:
        """Gather the teacher's embeddings of a whole batch [N, D] from all processes."""
        known = [target.embeddings[view].flatten(0, 1) for target in targets]
        gathered = known[0].new_zeros(self.run.batch.size, known[0].shape[1])
        for target, rows in zip(targets, known, strict=True):
            gathered[target.offset : target.offset + len(rows)] = rows
        self.all_reduce_(gathered)
        return gathered


def _rows(keys: dict[int, Tensor], target: Target) -> dict[int, Tensor]:
    """Select the rows of the gathered embeddings that belong to a target's shards, as [S, B, D]."""
    shards, images, _ = next(iter(target.embeddings.values())).shape
    mine = slice(target.offset, target.offset + shards * images)
    return {view: of_batch[mine].unflatten(0, (shards, images)) for view, of_batch in keys.items()}
