"""Pairs of views that the losses compare, and sums over them."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")
Views = tuple[Tensor, Tensor]


def crossed(student: Sequence[T], teacher: Sequence[T]) -> tuple[tuple[T, T], tuple[T, T]]:
    """Pair each view of the student with the teacher's other view, never with its own."""
    return (student[0], teacher[1]), (student[1], teacher[0])


def total(terms: Iterable[Tensor]) -> Tensor:
    """Add up one or more tensors."""
    result = sum(terms)
    assert isinstance(result, Tensor)
    return result
