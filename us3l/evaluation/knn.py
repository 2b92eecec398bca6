"""Weighted k-nearest-neighbour classification of features (Wu et al. 2018, arXiv 1805.01978, section 3.4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.evaluation.features import EvaluationImages, features
from us3l.evaluation.result import Result
from us3l.models.folding import fold_batch_norms
from us3l.params.protocols.knn import Knn
from us3l.utils.errors import UserError

CHUNK = 256  # test images that are compared at once


def evaluate_networks(networks: list[nn.Module], images: EvaluationImages, protocol: Knn) -> list[Result]:
    """Return each network's votes for the classes of the test images, as logits.

    Raises UserError where the training images are fewer than the neighbours.
    """
    count = len(images.labels)
    if protocol.neighbours > count:
        what = f"must be at most {count}, the number of training images, not {protocol.neighbours}"
        raise UserError(f"the knn protocol's neighbours {what}")
    frozen = [fold_batch_norms(network) for network in networks]
    banks, queries = features(frozen, images.training()), features(frozen, images.test())
    of_each = zip(banks, queries, strict=True)
    return [Result(votes(*each, images.labels, images.classes, protocol)) for each in of_each]


def votes(bank: Tensor, queries: Tensor, labels: Tensor, classes: int, protocol: Knn) -> Tensor:
    """Compute the share of the votes that each class gets [M, classes]; bank: [N, F], labels: [N]; queries: [M, F].

    The nearest neighbours by cosine vote for their own label with exp(cosine / temperature).
    """
    bank, shares = F.normalize(bank), []
    for chunk in F.normalize(queries).split(CHUNK):
        cosines, neighbours = (chunk @ bank.T).topk(protocol.neighbours)
        # A softmax divides by the sum over the neighbours, which changes no ranking, and does not overflow.
        weights = (cosines / protocol.temperature).softmax(1)
        ballots = F.one_hot(labels[neighbours], classes).to(weights.dtype)
        shares.append((weights[:, None] @ ballots)[:, 0])
    return torch.cat(shares)
