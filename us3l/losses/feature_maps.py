"""Losses between feature maps of a student and a teacher.

Each takes, for student and teacher, a pair (one a view) of equally long lists of maps [B, C, H, W], and returns the
mean over maps and crossed views. No gradient goes to the teacher.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from us3l.losses.views import crossed

Maps = tuple[list[Tensor], list[Tensor]]


def feature_mse(student: Maps, teacher: Maps) -> Tensor:
    """Mean squared error of all elements (official MSELoss)."""
    return _mean(F.mse_loss, student, teacher)


def attention_spatial(student: Maps, teacher: Maps) -> Tensor:
    """Mean squared error of the softmax over positions of maps summed over channels (official AMSELoss)."""
    return _mean(
        lambda one, other: F.mse_loss(*(each.sum(1).flatten(1).softmax(1) for each in (one, other))), student, teacher
    )


def attention_channel(student: Maps, teacher: Maps) -> Tensor:
    """Mean squared error of the softmax over channels of maps summed over positions (official CMSELoss)."""
    return _mean(
        lambda one, other: F.mse_loss(*(each.sum((2, 3)).softmax(1) for each in (one, other))), student, teacher
    )


def feature_cosine(student: Maps, teacher: Maps) -> Tensor:
    """Negative cosine similarity of maps summed over positions (official CosineSimilarity).

    The official CosineSimilarityv2 leaves out the minus, so that training would push the views apart.
    """
    return -_mean(lambda one, other: F.cosine_similarity(one.sum((2, 3)), other.sum((2, 3))).mean(), student, teacher)


FEATURE_LOSSES = {
    "mse": feature_mse,
    "cosine": feature_cosine,
    "attention-spatial": attention_spatial,
    "attention-channel": attention_channel,
}


def _mean(distance: Callable[[Tensor, Tensor], Tensor], student: Maps, teacher: Maps) -> Tensor:
    pairs = [pair for lists in crossed(student, teacher) for pair in zip(*lists, strict=True)]
    return sum(distance(one, other.detach()) for one, other in pairs) / len(pairs)
