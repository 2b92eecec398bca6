"""Linear evaluation: a linear classifier on the frozen features of each width.

Official workers/linear.py: evaluation mode while training, SGD, cross-entropy, the result after the last epoch. All
widths see the same batches, so that the images are augmented once.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from us3l.evaluation.classifier import Classifiers, fit, train_on_kept
from us3l.evaluation.features import CHUNK, Seen, feature_sizes, features
from us3l.models.folding import folded
from us3l.params.dataset import Augmentation
from us3l.params.protocol import Linear


def answers(networks: list[nn.Module], images: Seen, protocol: Linear) -> list[Tensor]:
    """The logits of the test images [N, classes] for each network."""
    frozen = [folded(network) for network in networks]
    return train(frozen, images, protocol)(features(frozen, images.test()))


def train(networks: list[nn.Module], images: Seen, protocol: Linear) -> Classifiers:
    """A classifier for each network.

    Images that are not augmented have the same features in every epoch, so these are computed once.
    """
    labels, classes, seed = images.labels, images.classes, images.seed
    sizes = feature_sizes(networks, images)
    if images.views.linear == Augmentation():
        everything = torch.arange(len(labels), device=labels.device)
        known = features(networks, images.augmented(0, everything.split(CHUNK)))
        return train_on_kept(known, labels, classes, protocol, seed)
    classifiers = Classifiers(sizes, classes, protocol.optimizer, seed, labels.device)
    fit(classifiers.learn, partial(_see, networks, images), labels, protocol, seed)
    return classifiers


def _see(networks: list[nn.Module], images: Seen, epoch: int, batches: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Of each batch, as it is augmented in this epoch, the features of each network."""
    for x in images.augmented(epoch, batches):
        yield features(networks, x.split(CHUNK))
