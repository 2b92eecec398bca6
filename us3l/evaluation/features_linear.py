"""Linear classifier on features that are computed once: fast, and without augmentation."""

from torch import Tensor, nn

from us3l.evaluation.classifier import train_on_features
from us3l.evaluation.features import EvaluationImages, features
from us3l.models.folding import folded
from us3l.params.protocols.linear import FeaturesLinear


def predict_logits(networks: list[nn.Module], images: EvaluationImages, protocol: FeaturesLinear) -> list[Tensor]:
    """Return each network's logits of the test images [N, classes]."""
    frozen = [folded(network) for network in networks]
    bank = features(frozen, images.training())
    classifiers = train_on_features(bank, images.labels, images.classes, protocol, images.seed)
    return classifiers(features(frozen, images.test()))
