"""Linear classifiers on features, trained by SGD on the cross-entropy (official workers/linear.py)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.params.evaluation import ClassifierOptimizer, FeaturesLinear, Linear, Trained
from us3l.random import Purpose, permutation
from us3l.schedule import learning_rate
from us3l.sgd import sgd_step, trusted

Learn = Callable[[Tensor, Tensor, float], None]  # a step on x [B, ...] with labels [B] at a learning rate
See = Callable[[int, Sequence[Tensor]], Iterable[Sequence[Tensor]]]  # of an epoch's batches, what each learner sees


def fit(learners: list[Learn], see: See, labels: Tensor, protocol: Trained, seed: int) -> None:
    """Train all learners on the same batches: every image once an epoch, in an order of its own; labels: [N]."""
    for epoch in range(protocol.epochs):
        lr = learning_rate(protocol.optimizer, epoch, protocol.epochs)
        order = permutation(seed, Purpose.LINEAR_ORDER, epoch, len(labels), labels.device)
        batches = order.split(protocol.batch_size)
        for samples, seen in zip(batches, see(epoch, batches), strict=True):
            for learn, x in zip(learners, seen, strict=True):
                learn(x, labels[samples], lr)


def linear_layer(features: int, classes: int, seed: int, device: torch.device) -> nn.Linear:
    """A fresh classifier; no random number outside it depends on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(features, classes).to(device)


class Classifier:
    """A linear layer and its velocities: features [B, F] to logits [B, classes]."""

    def __init__(self, layer: nn.Linear, optimizer: ClassifierOptimizer) -> None:
        self.layer = layer
        self.optimizer = optimizer
        self.velocities = [torch.zeros_like(weights) for weights in layer.parameters()]

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        return self.layer(features)

    def learn(self, features: Tensor, labels: Tensor, lr: float) -> None:
        parameters = list(self.layer.parameters())
        gradients = torch.autograd.grad(F.cross_entropy(self.layer(features), labels), parameters)
        for parameter, gradient, velocity in zip(parameters, gradients, self.velocities, strict=True):
            sgd_step(parameter, self._with_decay(parameter.detach(), gradient), velocity, lr, self.optimizer.momentum)

    def _with_decay(self, weights: Tensor, gradient: Tensor) -> Tensor:
        decay, trust = self.optimizer.weight_decay, self.optimizer.trust
        return gradient + decay * weights if trust is None else trusted(weights, gradient, decay, trust)


def train_on_kept(
    known: list[Tensor], labels: Tensor, classes: int, protocol: Linear | FeaturesLinear, seed: int
) -> list[Classifier]:
    """A classifier for each network, on features [N, F] that are the same in every epoch; labels: [N]."""
    classifiers = [
        Classifier(linear_layer(each.shape[1], classes, seed, each.device), protocol.optimizer) for each in known
    ]
    learners = [classifier.learn for classifier in classifiers]
    fit(learners, lambda epoch, batches: ([of[each] for of in known] for each in batches), labels, protocol, seed)
    return classifiers
