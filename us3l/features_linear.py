"""A linear classifier on features that are computed once: fast, and without augmentation."""

import torch
from torch import Tensor, nn

from us3l.classifier import train_on_kept
from us3l.evaluation import Images, evaluate, features
from us3l.params.evaluation import FeaturesLinear
from us3l.plan import RunPlan


def features_linear(plan: RunPlan, seed: int, device: torch.device) -> None:
    """Write one JSON for each width of the run; see `us3l.evaluation.evaluate`."""
    evaluate(plan, seed, device, answers)


def answers(networks: list[nn.Module], images: Images, protocol: FeaturesLinear) -> list[Tensor]:
    """The logits of the test images [N, classes] for each network."""
    known = features(networks, images.training())
    classifiers = train_on_kept(known, images.labels, images.classes, protocol, images.seed)
    seen = features(networks, images.test())
    return [classifier(each) for classifier, each in zip(classifiers, seen, strict=True)]
