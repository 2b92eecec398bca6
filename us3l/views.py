"""The images of a step: views of a batch's shards, and which views losses compare."""

from typing import NamedTuple, TypeVar

from torch import Tensor

T = TypeVar("T")
Views = tuple[Tensor, Tensor]


class Shard(NamedTuple):
    """Images within which BatchNorm's statistics are taken: two views of each [B, C, H, W], or one.

    number: which shard of the batch it is; labels: [B] int64. Where the batch is shuffled for the teacher, `shuffled`
    are views of the images that lie in this shard then, and `order` [batch] says which image of the batch lies where.
    """

    views: tuple[Tensor, ...]
    number: int = 0
    labels: Tensor | None = None
    shuffled: tuple[Tensor, ...] | None = None
    order: Tensor | None = None


def crossed(student: tuple[T, T], teacher: tuple[T, T]) -> tuple[tuple[T, T], tuple[T, T]]:
    """The pairs of student and teacher that come from different views: a student never meets that of its own view."""
    return (student[0], teacher[1]), (student[1], teacher[0])
