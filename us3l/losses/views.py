"""Which views losses compare."""

from typing import TypeVar

from torch import Tensor

T = TypeVar("T")
Views = tuple[Tensor, Tensor]


def crossed(student: tuple[T, T], teacher: tuple[T, T]) -> tuple[tuple[T, T], tuple[T, T]]:
    """The pairs of student and teacher that come from different views: a student never meets that of its own view."""
    return (student[0], teacher[1]), (student[1], teacher[0])
