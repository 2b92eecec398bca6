"""DINO (arXiv 2104.14294): cross entropy against a centred, sharpened teacher.

The official DINOLoss keeps a centre for each image of the batch, [1, B, D], and resets it every epoch. Here it is
[1, D], as in the paper, and the caller keeps it.
"""

import torch
from torch import Tensor

from us3l.losses.embeddings import kl
from us3l.losses.views import Views


def dino(
    student: Views, teacher: Views, center: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Compute the loss of embeddings [..., B, D] over crossed views, the teacher's minus `center` [1, D]."""
    centered = teacher[0] - center, teacher[1] - center
    return kl(student, centered, student_temperature, teacher_temperature)


@torch.no_grad()
def next_center(center: Tensor, teacher: Views, momentum: float = 0.9) -> Tensor:
    """Return the centre [1, D] after a batch: a moving average of the teacher's mean embedding.

    teacher: the embeddings of the whole batch, [N, D] each.
    """
    return center.lerp(torch.cat(teacher).mean(0, keepdim=True), 1 - momentum)


def teacher_temperature(epoch: int, final: float, start: float = 0.04, warmup_epochs: int = 30) -> float:
    """Return the teacher's temperature: linear from `start` to `final`, reached in the last epoch of the warm-up."""
    if epoch >= warmup_epochs - 1:
        return final
    return start + (final - start) * epoch / (warmup_epochs - 1)
