"""Losses between the two views' embeddings of a student and a teacher.

Each takes `student` and `teacher`, both a pair of [B, D] tensors (one a view), and compares different views only:
a student never meets the teacher's embedding of its own view.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.params.training import Method
from us3l.relations import rkd_angle, rkd_distance, similarity_matrix, similarity_matrix_mse
from us3l.views import Views, crossed


def cosine(student: Views, teacher: Views) -> Tensor:
    """Negative cosine similarity, in [-1, 1]: the squared error of BYOL and SimSiam up to an affine map."""
    return -sum(F.cosine_similarity(one, other).mean() for one, other in crossed(student, teacher)) / 2


def infonce(student: Views, teacher: Views, temperature: float) -> Tensor:
    """NT-Xent between student and teacher, both ways; all other 2B - 2 embeddings of both sides are negatives."""
    return sum(nt_xent(*pair, temperature) for pair in crossed(student, teacher)) / 2


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss (arXiv 2002.05709, eq. 1) over the 2B embeddings of two views [B, D]."""
    embeddings = F.normalize(torch.cat((one, other)), dim=1)
    logits = embeddings @ embeddings.T / temperature
    logits.fill_diagonal_(float("-inf"))
    positives = torch.arange(len(logits), device=logits.device).roll(len(one))
    return F.cross_entropy(logits, positives)


def kl(student: Views, teacher: Views, student_temperature: float, teacher_temperature: float) -> Tensor:
    """Cross entropy of the softmax over the D outputs, each side with a temperature of its own (official KLLoss).

    It is KL divergence but for the teacher's entropy, which has no gradient: none goes to the teacher.
    """
    targets = [(view.detach() / teacher_temperature).softmax(1) for view in teacher]
    pairs = crossed((student[0] / student_temperature, student[1] / student_temperature), targets)
    return sum(soft_cross_entropy(*pair) for pair in pairs) / 2


def mse(student: Views, teacher: Views) -> Tensor:
    """Mean squared error of all elements, without normalization (official MSELoss)."""
    return sum(F.mse_loss(one, other.detach()) for one, other in crossed(student, teacher)) / 2


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits [B, K] with the teacher's probabilities [B, K] (SEED, arXiv 2101.04731, eq. 4).

    Temperatures are the caller's: the official SEED divides the student's similarities by its own, and takes the
    softmax of the teacher's divided by the teacher's.
    """
    return -(targets.detach() * logits.log_softmax(1)).sum(1).mean()


BY_EMBEDDINGS = {
    "cosine": cosine,
    "mse": mse,
    "rkd-distance": rkd_distance,
    "rkd-angle": rkd_angle,
    "similarity-matrix": similarity_matrix,
    "similarity-matrix-mse": similarity_matrix_mse,
}


def loss(name: str, student: Views, teacher: Views, method: Method) -> Tensor:
    """The loss that params.yaml calls `name`, with the method's temperatures."""
    if name in BY_EMBEDDINGS:
        return BY_EMBEDDINGS[name](student, teacher)
    if name == "kl":
        return kl(student, teacher, method.student_temperature, method.teacher_temperature)
    if name == "infonce":
        return infonce(student, teacher, method.temperature)
    return nt_xent(*student, method.temperature)
