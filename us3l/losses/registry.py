"""The losses by their names in params.yaml: what each compares a student with."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.losses import embeddings, relations
from us3l.losses.dino import dino
from us3l.losses.views import Views, crossed
from us3l.params.method import Method


class Target(NamedTuple):
    """What the student of S shards of B images is held against.

    embeddings: the teacher's, [S, B, D] each, by view; maps: its feature maps of each view; labels: [S, B]. Of the
    whole batch: keys: [N, D], by view, in which the shards begin at row `offset`. Kept from earlier steps: queue:
    [K, D]; center: [1, D]. teacher_temperature: DINO's temperature of the teacher.
    """

    embeddings: dict[int, Tensor]
    maps: list[list[Tensor]]
    labels: Tensor | None
    keys: dict[int, Tensor]
    offset: int
    queue: Tensor | None
    center: Tensor | None
    teacher_temperature: float

    @property
    def pair(self) -> Views:
        return self.embeddings[0], self.embeddings[1]


Student = tuple[Tensor, ...]  # embeddings [S, B, D] of the views that the loss looks at

_OF_PAIRS = {
    "cosine": embeddings.cosine,
    "mse": embeddings.mse,
    "rkd-distance": relations.rkd_distance,
    "rkd-angle": relations.rkd_angle,
    "similarity-matrix": relations.similarity_matrix,
    "similarity-matrix-mse": relations.similarity_matrix_mse,
}


def _contrastive(student: Student, target: Target, method: Method) -> Tensor:
    """The sum of both directions, as MoCo v3 has it."""
    keys = target.keys[0], target.keys[1]
    return sum(embeddings.contrastive(*pair, target.offset, method.temperature) for pair in crossed(student, keys))


LOSSES: dict[str, Callable[[Student, Target, Method], Tensor]] = {
    **{name: lambda s, t, m, of=of: of(s, t.pair) for name, of in _OF_PAIRS.items()},
    "infonce": lambda s, t, m: embeddings.infonce(s, t.pair, m.temperature),
    "nt-xent": lambda s, t, m: embeddings.nt_xent(*s, m.temperature),
    "kl": lambda s, t, m: embeddings.kl(s, t.pair, m.student_temperature, m.teacher_temperature),
    "dino": lambda s, t, m: dino(s, t.pair, t.center, m.student_temperature, t.teacher_temperature),
    "contrastive": _contrastive,
    "queue": lambda s, t, m: embeddings.queue(s[0], t.embeddings[1], t.queue, m.temperature),
    "queue-soft-labels": lambda s, t, m: embeddings.queue_soft_labels(
        s[0], t.embeddings[0], t.queue, m.student_temperature, m.teacher_temperature
    ),
    "cross-entropy": lambda s, t, m: F.cross_entropy(s[0].flatten(0, -2), t.labels.flatten()),
    "soft-labels": lambda s, t, m: embeddings.soft_cross_entropy(s[0], t.embeddings[0].softmax(-1)),
}

# The losses that look at one view of the student: the first. Which views of the teacher's those look at.
ONE_VIEW = {"queue": (1,), "queue-soft-labels": (0,), "cross-entropy": (), "soft-labels": (0,)}


def loss(names: str, student: Student, target: Target, method: Method) -> Tensor:
    """The sum of the losses that params.yaml calls `names`, with the method's temperatures."""
    return sum(LOSSES[name](student, target, method) for name in names.split("+"))


def student_views(names: str) -> range:
    """The views that a student is run on for these losses."""
    return range(1 if all(name in ONE_VIEW for name in names.split("+")) else 2)


def teacher_views(method: Method) -> list[int]:
    """The views that a teacher apart from the student is run on; feature maps are compared in both."""
    views = {view for name in method.losses for view in ONE_VIEW.get(name, (0, 1))}
    return [0, 1] if method.feature_distillation else sorted(views)


def at_least_float32(views: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Losses are computed in the weights' precision or in float32, never in bfloat16."""
    return tuple(view.float() if view.dtype == torch.bfloat16 else view for view in views)
