"""Linear evaluation: a linear classifier on the frozen features of each width.

Official workers/linear.py: evaluation mode while training, SGD, cross-entropy, the result after the last epoch. All
widths see the same batches, so that the images are augmented once.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from us3l.evaluation.classifier import Classifiers, fit, train_on_features
from us3l.evaluation.features import CHUNK, EvaluationImages, feature_sizes, features
from us3l.evaluation.result import Result
from us3l.models.folding import fold_batch_norms
from us3l.params.dataset import Augmentation
from us3l.params.protocols.linear import Linear


def evaluate_networks(networks: list[nn.Module], images: EvaluationImages, protocol: Linear) -> list[Result]:
    """Return each network's logits of the test images, and its classifier."""
    frozen = [fold_batch_norms(network) for network in networks]
    return train(frozen, images, protocol).results(features(frozen, images.test()))


def train(networks: list[nn.Module], images: EvaluationImages, protocol: Linear) -> Classifiers:
    """Train a classifier for each network.

    Images that are not augmented have the same features in every epoch, which are computed once.
    """
    labels, classes, seed = images.labels, images.classes, images.seed
    sizes = feature_sizes(networks, images)
    if images.views.linear == Augmentation():
        everything = torch.arange(len(labels), device=labels.device)
        kept = features(networks, images.augmented(0, everything.split(CHUNK)))
        return train_on_features(kept, labels, classes, protocol, seed)
    classifiers = Classifiers(sizes, classes, protocol.optimizer, seed, labels.device)
    fit(classifiers.step, partial(_features, networks, images), labels, protocol, seed)
    return classifiers


def _features(
    networks: list[nn.Module], images: EvaluationImages, epoch: int, batches: Sequence[Tensor]
) -> Iterator[list[Tensor]]:
    """Yield the features of each network of each batch, augmented as in this epoch."""
    for x in images.augmented(epoch, batches):
        yield features(networks, x.split(CHUNK))
