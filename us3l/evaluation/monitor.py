"""Whether a network learns: nearest neighbours, effective rank and spread of the features of a few images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from us3l.data.images import open_images
from us3l.data.resident import to_device
from us3l.data.store import Store
from us3l.evaluation.calibration import calibrate_batch_norms
from us3l.evaluation.features import EvaluationImages, features
from us3l.evaluation.knn import votes
from us3l.evaluation.metrics import predicted
from us3l.params.dataset import Views
from us3l.params.protocols.calibration import Calibration
from us3l.params.protocols.knn import Knn
from us3l.training.step import feature_std

CALIBRATION = Calibration(passes=1, batch_size=128, momentum=0.5)  # so that a few batches outweigh the initial values
NEIGHBOURS = 20
EPSILON = 1e-7  # RankMe's


def look(networks: Sequence[nn.Module], store: Store, views: Views, device: torch.device) -> dict[str, list[float]]:
    """Calibrate networks on the images of a store, and describe the features that each makes of them.

    knn: top-1 accuracy of the test images in percent, absent where there are fewer than two classes; rank: effective
    rank of the training images' features; spread: 1 if these lie evenly on the sphere, 0 if all are equal.
    """
    images = EvaluationImages(store, views, 0, device)
    calibrate_batch_norms([*networks], CALIBRATION, open_images(store.train, device), views, 0)
    frozen = [network.eval() for network in networks]
    banks = features(frozen, images.training())
    shape = {
        "rank": [effective_rank(bank) for bank in banks],
        "spread": [float(feature_std(bank[None])) for bank in banks],
    }
    if images.classes < 2:
        return shape
    protocol = Knn(kind="knn", neighbours=min(NEIGHBOURS, len(images.labels)))
    shares = [
        votes(bank, queries, images.labels, images.classes, protocol)
        for bank, queries in zip(banks, features(frozen, images.test()), strict=True)
    ]
    return {"knn": [_accuracy(each, to_device(store.test.labels, device)) for each in shares], **shape}


def effective_rank(features: Tensor) -> float:
    """Compute RankMe of features [N, F]: exp of the entropy of their singular values (arXiv 2210.02885, section 3)."""
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum().clamp(min=EPSILON) + EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


def _accuracy(shares: Tensor, labels: Tensor) -> float:
    return 100 * float((predicted(shares) == labels).double().mean())
