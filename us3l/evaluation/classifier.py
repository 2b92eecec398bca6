"""Linear classifiers on features, trained by SGD on the cross-entropy (official workers/linear.py)."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.evaluation.result import Result
from us3l.params.protocols.linear import FeaturesLinear, Linear
from us3l.params.protocols.trained import ClassifierOptimizer, TrainedProtocol
from us3l.training.lr_schedule import learning_rate
from us3l.training.optimizers import sgd_step, trusted
from us3l.utils.philox import Purpose, RandomKey, permutation

Batch = TypeVar("Batch")  # images [B, C, H, W], or the features [B, F] that each network makes of them


def fit(
    step: Callable[[Batch, Tensor, float], None],
    batches: Callable[[int, Sequence[Tensor]], Iterable[Batch]],
    labels: Tensor,
    protocol: TrainedProtocol,
    seed: int,
) -> None:
    """Train on every image once an epoch, in the epoch's own order; labels: [N].

    `batches` yields, for an epoch and the numbers of its images [B] in each step, what `step` learns from; `step` takes
    that, its labels [B], and a learning rate.
    """
    for epoch in range(protocol.epochs):
        lr = learning_rate(protocol.optimizer, epoch, protocol.epochs)
        order = permutation(RandomKey(seed, Purpose.LINEAR_ORDER, epoch), len(labels), labels.device)
        numbers = order.split(protocol.batch_size)
        for samples, batch in zip(numbers, batches(epoch, numbers), strict=True):
            step(batch, labels[samples], lr)


def linear_layer(features: int, classes: int, seed: int, device: torch.device) -> nn.Linear:
    """Build a fresh classifier; no random number outside it depends on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(features, classes).to(device)


class Classifiers:
    """Linear layers that are trained together, one for each network, and their momentum buffers.

    The weights of all lie one after the other, [all their features, classes], so that one SGD step moves all; the
    biases are [networks, classes].
    """

    def __init__(
        self, sizes: list[int], classes: int, optimizer: ClassifierOptimizer, seed: int, device: torch.device
    ) -> None:
        layers = [linear_layer(size, classes, seed, device) for size in sizes]
        self.sizes, self.optimizer = sizes, optimizer
        self.weights = torch.cat([layer.weight.detach().T for layer in layers])
        self.biases = torch.stack([layer.bias.detach() for layer in layers])
        self._momentum_buffers = torch.zeros_like(self.weights), torch.zeros_like(self.biases)

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits [B, classes] of the features of each network, [B, F]."""
        layers = zip(self.biases, features, self.weights.split(self.sizes), strict=True)
        return [torch.addmm(*layer) for layer in layers]

    def results(self, features: Sequence[Tensor]) -> list[Result]:
        """Return the logits of the features of each network, [N, F], with the weights of its classifier."""
        of_each = zip(self(features), self.weights.split(self.sizes), self.biases, strict=True)
        return [
            Result(logits, {"classifier.weight": weight.T, "classifier.bias": bias}) for logits, weight, bias in of_each
        ]

    def step(self, features: Sequence[Tensor], labels: Tensor, lr: float) -> None:
        """Take a step on the features of each network [B, F] with the labels [B]."""
        # The gradient of the cross-entropy with respect to the logits: [networks, B, classes].
        errors = torch.stack(self(features)).softmax(2).sub_(F.one_hot(labels, self.biases.shape[1])).div_(len(labels))
        weight_gradient = torch.cat([x.T @ error for x, error in zip(features, errors, strict=True)])
        self._update(self.weights, weight_gradient, self.sizes, self._momentum_buffers[0], lr)
        self._update(self.biases, errors.sum(1), [1] * len(self.biases), self._momentum_buffers[1], lr)

    def _update(
        self, parameter: Tensor, gradient: Tensor, sizes: list[int], momentum_buffer: Tensor, lr: float
    ) -> None:
        decay, trust = self.optimizer.weight_decay, self.optimizer.trust_coefficient
        if trust is None:
            gradient = gradient.add_(parameter, alpha=decay)
        else:
            parts = zip(parameter.split(sizes), gradient.split(sizes), strict=True)
            gradient = torch.cat([trusted(*part, decay, trust) for part in parts])
        sgd_step(parameter, gradient, momentum_buffer, lr, self.optimizer.momentum)


def train_on_features(
    features: list[Tensor], labels: Tensor, classes: int, protocol: Linear | FeaturesLinear, seed: int
) -> Classifiers:
    """Train a classifier for each network, on features [N, F] that are the same in every epoch; labels: [N]."""
    sizes, kept = [each.shape[1] for each in features], torch.cat(features, dim=1)
    classifiers = Classifiers(sizes, classes, protocol.optimizer, seed, kept.device)

    def batches(epoch: int, numbers: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
        return (kept[samples].split(sizes, 1) for samples in numbers)

    fit(classifiers.step, batches, labels, protocol, seed)
    return classifiers
