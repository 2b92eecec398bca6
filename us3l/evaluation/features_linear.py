"""A linear classifier on features that are computed once: fast, and without augmentation."""

from torch import Tensor, nn

from us3l.evaluation.classifier import train_on_kept
from us3l.evaluation.features import Seen, features
from us3l.models.folding import folded
from us3l.params.protocol import FeaturesLinear


def answers(networks: list[nn.Module], images: Seen, protocol: FeaturesLinear) -> list[Tensor]:
    """The logits of the test images [N, classes] for each network."""
    frozen = [folded(network) for network in networks]
    known = features(frozen, images.training())
    classifiers = train_on_kept(known, images.labels, images.classes, protocol, images.seed)
    return classifiers(features(frozen, images.test()))
