"""Weighted k-nearest-neighbour classification of features (Wu et al. 2018, arXiv 1805.01978, section 3.4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.errors import UserError
from us3l.evaluation import Images, evaluate, features
from us3l.params.evaluation import Knn
from us3l.plan import RunPlan

CHUNK = 256  # test images that are compared at once


def knn(plan: RunPlan, seed: int, device: torch.device) -> None:
    """Write one JSON for each width of the run; see `us3l.evaluation.evaluate`. The seed is the training's."""
    evaluate(plan, seed, device, answers)


def answers(networks: list[nn.Module], images: Images, protocol: Knn) -> list[Tensor]:
    """The votes for the classes of the test images [N, classes] for each network.

    Raises UserError where there are fewer training images than neighbours.
    """
    known, asked = features(networks, images.training()), features(networks, images.test())
    return [votes(*each, images.labels, images.classes, protocol) for each in zip(known, asked, strict=True)]


def votes(known: Tensor, asked: Tensor, labels: Tensor, classes: int, protocol: Knn) -> Tensor:
    """The share of the votes that each class gets [M, classes]; known: [N, F] with labels [N]; asked: [M, F].

    The nearest neighbours by cosine vote for their own label with exp(cosine / temperature).
    """
    if protocol.neighbours > len(known):
        raise UserError(f"neighbours is {protocol.neighbours}, but there are only {len(known)} training images")
    known, shares = F.normalize(known), []
    for chunk in F.normalize(asked).split(CHUNK):
        cosines, neighbours = (chunk @ known.T).topk(protocol.neighbours)
        # A softmax divides by the sum over the neighbours, which changes no ranking, and does not overflow.
        weights = (cosines / protocol.temperature).softmax(1)
        ballots = F.one_hot(labels[neighbours], classes).to(weights.dtype)
        shares.append((weights[:, None] @ ballots)[:, 0])
    return torch.cat(shares)
