"""Losses between the two views' embeddings of a student and a teacher.

Each takes `student` and `teacher`, both a pair of [B, D] tensors (one a view), and compares different views only:
a student never meets the teacher's embedding of its own view.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Views = tuple[Tensor, Tensor]


def cosine(student: Views, teacher: Views) -> Tensor:
    """Negative cosine similarity, in [-1, 1]: the squared error of BYOL and SimSiam up to an affine map."""
    pairs = ((student[0], teacher[1]), (student[1], teacher[0]))
    return -sum(F.cosine_similarity(one, other).mean() for one, other in pairs) / 2


def infonce(student: Views, teacher: Views, temperature: float) -> Tensor:
    """NT-Xent between student and teacher, both ways; all other 2B - 2 embeddings of both sides are negatives."""
    return (nt_xent(student[0], teacher[1], temperature) + nt_xent(student[1], teacher[0], temperature)) / 2


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss (arXiv 2002.05709, eq. 1) over the 2B embeddings of two views [B, D]."""
    embeddings = F.normalize(torch.cat((one, other)), dim=1)
    logits = embeddings @ embeddings.T / temperature
    logits.fill_diagonal_(float("-inf"))
    positives = torch.arange(len(logits), device=logits.device).roll(len(one))
    return F.cross_entropy(logits, positives)


def loss(name: str, student: Views, teacher: Views, temperature: float) -> Tensor:
    """The loss that params.yaml calls `name`."""
    if name == "cosine":
        return cosine(student, teacher)
    if name == "infonce":
        return infonce(student, teacher, temperature)
    return nt_xent(*student, temperature)
