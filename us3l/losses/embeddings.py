"""Losses between the embeddings of a student and a teacher.

Embeddings are [..., B, D]: B images that are compared with each other, and in front of them any number of shards, over
which a loss is the mean. Losses that take `Views`, pairs of embeddings (one a view), compare different views only: a
student never meets the teacher's embedding of its own view.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.losses.views import Views, crossed


def cosine(student: Views, teacher: Views) -> Tensor:
    """Negative cosine similarity, in [-1, 1]: the squared error of BYOL and SimSiam up to an affine map."""
    return -sum(F.cosine_similarity(one, other, dim=-1).mean() for one, other in crossed(student, teacher)) / 2


def infonce(student: Views, teacher: Views, temperature: float) -> Tensor:
    """NT-Xent between student and teacher, both ways; all other 2B - 2 embeddings of both sides are negatives."""
    return sum(nt_xent(*pair, temperature) for pair in crossed(student, teacher)) / 2


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss (arXiv 2002.05709, eq. 1) over the 2B embeddings of two views [..., B, D]."""
    embeddings = F.normalize(torch.cat((one, other), dim=-2), dim=-1)
    logits = embeddings @ embeddings.mT / temperature
    logits.diagonal(dim1=-2, dim2=-1).fill_(float("-inf"))
    positives = torch.arange(logits.shape[-1], device=logits.device).roll(one.shape[-2])
    return F.cross_entropy(logits.flatten(0, -2), positives.expand(logits.shape[:-1]).flatten())


def kl(student: Views, teacher: Views, student_temperature: float, teacher_temperature: float) -> Tensor:
    """Cross entropy of the softmax over the D outputs, each side with a temperature of its own (official KLLoss).

    It is KL divergence but for the teacher's entropy, which has no gradient: none goes to the teacher.
    """
    targets = [(view.detach() / teacher_temperature).softmax(-1) for view in teacher]
    pairs = crossed((student[0] / student_temperature, student[1] / student_temperature), targets)
    return sum(soft_cross_entropy(*pair) for pair in pairs) / 2


def mse(student: Views, teacher: Views) -> Tensor:
    """Mean squared error of all elements, without normalization (official MSELoss)."""
    return sum(F.mse_loss(one, other.detach()) for one, other in crossed(student, teacher)) / 2


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits [..., K] with the teacher's probabilities [..., K] (SEED, arXiv 2101.04731, eq. 4).

    Temperatures are the caller's: the official SEED divides the student's similarities by its own, and takes the
    softmax of the teacher's divided by the teacher's.
    """
    return -(targets.detach() * logits.log_softmax(-1)).sum(-1).mean()


def contrastive(student: Tensor, keys: Tensor, first: int, temperature: float) -> Tensor:
    """MoCo v3's loss (arXiv 2104.02057, algorithm 1), 2T times the cross entropy: which of the keys is one's own.

    student: [..., B, D]; keys: [N, D], the teacher's of a whole batch, the student's images from row `first` on.
    """
    student = student.flatten(0, -2)
    logits = F.normalize(student, dim=1) @ F.normalize(keys.detach(), dim=1).T / temperature
    own = torch.arange(first, first + len(student), device=student.device)
    return 2 * temperature * F.cross_entropy(logits, own)


def queue(student: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """MoCo's InfoNCE (arXiv 1911.05722, eq. 1) of [..., B, D] with the teacher's, against negatives [K, D] of norm 1.

    A student never meets the keys of other images of its own batch.
    """
    logits = _with_queue(student, key, negatives).flatten(0, -2) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def queue_soft_labels(
    student: Tensor, teacher: Tensor, negatives: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """SEED (arXiv 2101.04731, eq. 4): how alike an image is to the queue's [K, D] and to itself, student to teacher."""
    targets = _with_queue(teacher, teacher, negatives) / teacher_temperature
    return soft_cross_entropy(_with_queue(student, teacher, negatives) / student_temperature, targets.softmax(-1))


def _with_queue(one: Tensor, own: Tensor, negatives: Tensor) -> Tensor:
    """Cosine similarities of [..., D] with its own of [..., D], then with all of [K, D]: [..., 1 + K]."""
    one, own = F.normalize(one, dim=-1), F.normalize(own.detach(), dim=-1)
    return torch.cat(((one * own).sum(-1, keepdim=True), one @ negatives.T), dim=-1)
