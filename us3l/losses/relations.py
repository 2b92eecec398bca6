"""Losses between the relations among a student's embeddings and those among a teacher's.

Each takes `student` and `teacher`, one tensor [..., B, D] for each of two views as in `us3l.losses.embeddings`; D may
differ between student and teacher, except for `similarity_matrix_mse`. No gradient goes to the teacher.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.losses.views import Views, crossed, total


def rkd_distance(student: Views, teacher: Views) -> Tensor:
    """Compute relational distillation by distance (Park et al., CVPR 2019, eq. 4-6), averaged over crossed views.

    Huber loss, averaged over all B * B pairs, of distances in units of their mean over different embeddings.
    """
    pairs = crossed(student, teacher)
    return total(F.smooth_l1_loss(_distances(one), _distances(other.detach())) for one, other in pairs) / 2


def rkd_angle(student: Views, teacher: Views) -> Tensor:
    """Compute relational distillation by angle (Park et al., CVPR 2019, eq. 7-8), averaged over crossed views.

    Huber loss, averaged over all B ** 3 triplets, of the cosine of the angle at the first of the three.
    """
    pairs = crossed(student, teacher)
    return total(F.smooth_l1_loss(_angles(one), _angles(other.detach())) for one, other in pairs) / 2


def similarity_matrix(student: Views, teacher: Views) -> Tensor:
    """Compute the summed squared error of cosine similarities between all 2B embeddings (official SimMatrixLoss)."""
    ours, theirs = (F.normalize(torch.cat(views, dim=-2), dim=-1) for views in (student, teacher))
    return (ours @ ours.mT - (theirs @ theirs.mT).detach()).square().sum((-2, -1)).mean()


def similarity_matrix_mse(student: Views, teacher: Views) -> Tensor:
    """Compute the official SimMatrixMSELoss.

    It is 50 times the mean Huber loss of the cosine similarities [B, B] between the two views, plus the negative cosine
    similarity to the teacher of the other view.
    """
    ours, theirs = _between_views(student), _between_views(teacher).detach()
    cosines = [F.cosine_similarity(one, other.detach(), dim=-1).mean() for one, other in crossed(student, teacher)]
    return 50 * F.smooth_l1_loss(ours, theirs) - total(cosines) / 2


def _distances(embeddings: Tensor) -> Tensor:
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    count = embeddings.shape[-2]
    return distances / (distances.sum((-2, -1), keepdim=True) / (count * (count - 1))).clamp(min=1e-12)


def _angles(embeddings: Tensor) -> Tensor:
    directions = F.normalize(embeddings.unsqueeze(-3) - embeddings.unsqueeze(-2), dim=-1)
    return directions @ directions.mT


def _between_views(views: Views) -> Tensor:
    """Return the cosine similarities of the embeddings of one view with those of the other: [..., B, B]."""
    one, other = (F.normalize(view, dim=-1) for view in views)
    return one @ other.mT
