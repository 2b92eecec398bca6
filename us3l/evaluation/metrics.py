"""Accuracies of logits. Nothing here imports PyTorch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def predicted(logits: "Tensor") -> "Tensor":
    """Return the class [N] that logits [N, classes] predict; of classes with equal logits it is the first.

    Logits that are not numbers predict the number of classes, which is none of them.
    """
    return logits.argmax(dim=1).masked_fill(logits.isnan().any(dim=1), logits.shape[1])


def score(logits: "Tensor", labels: "Tensor") -> dict[str, Any]:
    """Compute the top-1 and top-5 accuracy in percent of logits [N, classes]; labels: [N].

    `interval` is Wilson's 95% interval of top-1. Of classes with equal logits the first is predicted; logits that are
    not numbers predict a wrong one.
    """
    ranks = (logits.argsort(dim=1, descending=True, stable=True) == labels[:, None]).int().argmax(1)
    ranks[logits.isnan().any(1)] = logits.shape[1]
    correct, n = int((ranks == 0).sum()), len(labels)
    top5 = 100 * int((ranks < 5).sum()) / n if logits.shape[1] > 5 else None
    return {"top1": 100 * correct / n, "interval": wilson(correct, n), "top5": top5, "n": n}


def wilson(correct: int, n: int) -> list[float]:
    """Compute Wilson's 95% interval of a proportion, in percent. (scipy.stats has it, and takes a second to import.)"""
    z, share = 1.959963984540054, correct / n
    centre = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return [100 * (centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
