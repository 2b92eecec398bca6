"""Linear classifier on features that are computed once: fast, and without augmentation."""

from torch import nn

from us3l.evaluation.classifier import train_on_features
from us3l.evaluation.features import EvaluationImages, features
from us3l.evaluation.result import Result
from us3l.models.folding import fold_batch_norms
from us3l.params.protocols.linear import FeaturesLinear


def evaluate_networks(networks: list[nn.Module], images: EvaluationImages, protocol: FeaturesLinear) -> list[Result]:
    """Return each network's logits of the test images, and its classifier."""
    frozen = [fold_batch_norms(network) for network in networks]
    bank = features(frozen, images.training())
    classifiers = train_on_features(bank, images.labels, images.classes, protocol, images.seed)
    return classifiers.results(features(frozen, images.test()))
