"""Losses between feature maps of a student and a teacher.

Each takes, for student and teacher, one list of maps [B, C, H, W] for each of two views, all of one length, and returns
the mean over maps and crossed views. No gradient goes to the teacher.
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from us3l.losses.views import crossed, total

Maps = Sequence[Sequence[Tensor]]


def feature_mse(student: Maps, teacher: Maps) -> Tensor:
    """Compute the mean squared error of all elements (official MSELoss)."""
    return _mean(F.mse_loss, student, teacher)


def attention_spatial(student: Maps, teacher: Maps) -> Tensor:
    """Compute the mean squared error of the softmax over positions of maps summed over channels (official AMSELoss)."""

    def attention(maps: Tensor) -> Tensor:
        return maps.sum(1).flatten(1).softmax(1)

    return _mean(lambda one, other: F.mse_loss(attention(one), attention(other)), student, teacher)


def attention_channel(student: Maps, teacher: Maps) -> Tensor:
    """Compute the mean squared error of the softmax over channels of maps summed over positions (official CMSELoss)."""

    def attention(maps: Tensor) -> Tensor:
        return maps.sum((2, 3)).softmax(1)

    return _mean(lambda one, other: F.mse_loss(attention(one), attention(other)), student, teacher)


def feature_cosine(student: Maps, teacher: Maps) -> Tensor:
    """Compute the negative cosine similarity of maps summed over positions (official CosineSimilarity).

    The official CosineSimilarityv2 lacks the minus sign, so that training would push the views apart.
    """
    return -_mean(lambda one, other: F.cosine_similarity(one.sum((2, 3)), other.sum((2, 3))).mean(), student, teacher)


FEATURE_LOSSES = {
    "mse": feature_mse,
    "cosine": feature_cosine,
    "attention-spatial": attention_spatial,
    "attention-channel": attention_channel,
}


def _mean(loss: Callable[[Tensor, Tensor], Tensor], student: Maps, teacher: Maps) -> Tensor:
    pairs = [pair for lists in crossed(student, teacher) for pair in zip(*lists, strict=True)]
    return total(loss(one, other.detach()) for one, other in pairs) / len(pairs)
