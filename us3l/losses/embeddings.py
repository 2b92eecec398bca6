"""Losses between the embeddings of a student and a teacher.

Embeddings are [..., B, D]: B images that are compared with each other, preceded by any number of axes of shards, over
which the loss is averaged. Losses that take `Views`, one tensor of embeddings for each of two views, compare different
views only: a student is never compared with the teacher's embedding of its own view.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.losses.views import Views, crossed, total


def cosine(student: Views, teacher: Views) -> Tensor:
    """Compute negative cosine similarity, in [-1, 1]: an affine map of the squared error of BYOL and SimSiam."""
    return -total(F.cosine_similarity(one, other, dim=-1).mean() for one, other in crossed(student, teacher)) / 2


def infonce(student: Views, teacher: Views, temperature: float) -> Tensor:
    """Compute NT-Xent between student and teacher, both ways; negatives are the 2B - 2 other embeddings of both."""
    return total(nt_xent(*pair, temperature) for pair in crossed(student, teacher)) / 2


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Compute SimCLR's loss (arXiv 2002.05709, eq. 1) over the 2B embeddings of two views [..., B, D]."""
    embeddings = F.normalize(torch.cat((one, other), dim=-2), dim=-1)
    logits = embeddings @ embeddings.mT / temperature
    logits.diagonal(dim1=-2, dim2=-1).fill_(float("-inf"))
    positives = torch.arange(logits.shape[-1], device=logits.device).roll(one.shape[-2])
    return F.cross_entropy(logits.flatten(0, -2), positives.expand(logits.shape[:-1]).flatten())


def kl(student: Views, teacher: Views, student_temperature: float, teacher_temperature: float) -> Tensor:
    """Compute cross entropy of the softmax over the D outputs, with one temperature for each side (official KLLoss).

    It equals KL divergence plus the teacher's entropy, which has no gradient: none goes to the teacher.
    """
    return (
        total(
            soft_cross_entropy(one / student_temperature, (other.detach() / teacher_temperature).softmax(-1))
            for one, other in crossed(student, teacher)
        )
        / 2
    )


def mse(student: Views, teacher: Views) -> Tensor:
    """Compute the mean squared error of all elements, without normalization (official MSELoss)."""
    return total(F.mse_loss(one, other.detach()) for one, other in crossed(student, teacher)) / 2


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute cross entropy of logits with the teacher's probabilities, both [..., K] (SEED, arXiv 2101.04731, eq. 4).

    The caller applies the temperatures: the official SEED divides the student's similarities by the student's
    temperature and takes the softmax of the teacher's similarities divided by the teacher's.
    """
    return -(targets.detach() * logits.log_softmax(-1)).sum(-1).mean()


def contrastive(student: Tensor, keys: Tensor, first: int, temperature: float) -> Tensor:
    """Compute MoCo v3's loss (arXiv 2104.02057, algorithm 1): 2T times the cross entropy of finding one's own key.

    student: [..., B, D]; keys: [N, D], the teacher's of a whole batch, where the student's images begin at row `first`.
    """
    student = student.flatten(0, -2)
    logits = F.normalize(student, dim=1) @ F.normalize(keys.detach(), dim=1).T / temperature
    own = torch.arange(first, first + len(student), device=student.device)
    return 2 * temperature * F.cross_entropy(logits, own)


def queue(student: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Compute MoCo's InfoNCE (arXiv 1911.05722, eq. 1) of student and key [..., B, D] with negatives [K, D] of norm 1.

    Keys of other images of the same batch are no negatives.
    """
    logits = _with_queue(student, key, negatives).flatten(0, -2) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def queue_soft_labels(
    student: Tensor, teacher: Tensor, negatives: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Compute SEED's loss (arXiv 2101.04731, eq. 4) over an image's similarities to itself and the queue.

    student, teacher: [..., B, D]; negatives: the queue, [K, D] of norm 1.
    """
    targets = _with_queue(teacher, teacher, negatives) / teacher_temperature
    return soft_cross_entropy(_with_queue(student, teacher, negatives) / student_temperature, targets.softmax(-1))


def _with_queue(one: Tensor, own: Tensor, negatives: Tensor) -> Tensor:
    """Return cosine similarities of [..., D] with its own key [..., D], then with all of [K, D]: [..., 1 + K]."""
    one, own = F.normalize(one, dim=-1), F.normalize(own.detach(), dim=-1)
    return torch.cat(((one * own).sum(-1, keepdim=True), one @ negatives.T), dim=-1)
