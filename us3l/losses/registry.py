"""The losses by their names in params.yaml, each with the parts of its target that it compares a student with."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.losses import embeddings, relations
from us3l.losses.dino import dino
from us3l.losses.views import Views, crossed, total
from us3l.params.method import Method


class Target(NamedTuple):
    """The teacher's outputs, labels and memory that a student of S shards of B images is compared with.

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
        """The teacher's embeddings of both views."""
        return _pair(self.embeddings)


Student = tuple[Tensor, ...]  # embeddings [S, B, D] of the views that the loss reads
Loss = Callable[[Student, Target, Method], Tensor]


def _pair(views: Student | dict[int, Tensor]) -> Views:
    return views[0], views[1]


def _given(tensor: Tensor | None) -> Tensor:
    """Return a part of a target that exists wherever a method's losses read it."""
    assert tensor is not None
    return tensor


def _contrastive(student: Student, target: Target, method: Method) -> Tensor:
    """Add up both directions, as in MoCo v3."""
    pairs = crossed(_pair(student), _pair(target.keys))
    return total(embeddings.contrastive(*pair, target.offset, method.temperature) for pair in pairs)


def _between_pairs(loss: Callable[[Views, Views], Tensor]) -> Loss:
    return lambda s, t, m: loss(_pair(s), t.pair)


LOSSES: dict[str, Loss] = {
    "cosine": _between_pairs(embeddings.cosine),
    "mse": _between_pairs(embeddings.mse),
    "rkd-distance": _between_pairs(relations.rkd_distance),
    "rkd-angle": _between_pairs(relations.rkd_angle),
    "similarity-matrix": _between_pairs(relations.similarity_matrix),
    "similarity-matrix-mse": _between_pairs(relations.similarity_matrix_mse),
    "infonce": lambda s, t, m: embeddings.infonce(_pair(s), t.pair, m.temperature),
    "nt-xent": lambda s, t, m: embeddings.nt_xent(*_pair(s), m.temperature),
    "kl": lambda s, t, m: embeddings.kl(_pair(s), t.pair, m.student_temperature, m.teacher_temperature),
    "dino": lambda s, t, m: dino(_pair(s), t.pair, _given(t.center), m.student_temperature, t.teacher_temperature),
    "contrastive": _contrastive,
    "queue": lambda s, t, m: embeddings.queue(s[0], t.embeddings[1], _given(t.queue), m.temperature),
    "queue-soft-labels": lambda s, t, m: embeddings.queue_soft_labels(
        s[0], t.embeddings[0], _given(t.queue), m.student_temperature, m.teacher_temperature
    ),
    "cross-entropy": lambda s, t, m: F.cross_entropy(s[0].flatten(0, -2), _given(t.labels).flatten()),
    "soft-labels": lambda s, t, m: embeddings.soft_cross_entropy(s[0], t.embeddings[0].softmax(-1)),
}

# The losses that read one view of the student, the first, with the teacher's views that they read.
ONE_VIEW: dict[str, tuple[int, ...]] = {
    "queue": (1,),
    "queue-soft-labels": (0,),
    "cross-entropy": (),
    "soft-labels": (0,),
}


def loss(names: str, student: Student, target: Target, method: Method) -> Tensor:
    """Compute the sum of the losses `names`, joined by + as in params.yaml, with the method's temperatures."""
    return total(LOSSES[name](student, target, method) for name in names.split("+"))


def student_views(names: str) -> range:
    """Return the views that these losses need of a student."""
    return range(1 if all(name in ONE_VIEW for name in names.split("+")) else 2)


def teacher_views(method: Method) -> list[int]:
    """Return the views that the losses need of a separate teacher; feature maps are compared in both."""
    views = {view for name in method.losses for view in ONE_VIEW.get(name, (0, 1))}
    return [0, 1] if method.feature_distillation else sorted(views)


def at_least_float32(views: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Convert bfloat16 to float32 and keep other dtypes: losses are never computed in bfloat16."""
    return tuple(view.float() if view.dtype == torch.bfloat16 else view for view in views)
