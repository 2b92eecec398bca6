"""Fine-tuning: train all weights of each width and a fresh classifier on it.

Official workers/linear.py without LINEAR_EVAL: training mode, SGD, cross-entropy, the result after the last epoch. On a
data set that is a share of another it is the semi-supervised evaluation. The official code means the classifier to have
a learning rate of its own, FC_LR, but gives it that of the network; here it has its own.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.evaluation.classifier import fit, linear_layer
from us3l.evaluation.features import EvaluationImages, feature_sizes, features
from us3l.evaluation.result import Result
from us3l.params.protocols.finetune import Finetune
from us3l.training.optimizers import sgd_step


def evaluate_networks(networks: list[nn.Module], images: EvaluationImages, protocol: Finetune) -> list[Result]:
    """Train the networks in place; return the logits of the test images by each, and all of its weights."""
    labels, seed = images.labels, images.seed
    tuned = [
        Tuned(network, linear_layer(size, images.classes, seed, labels.device), protocol)
        for network, size in zip(networks, feature_sizes(networks, images), strict=True)
    ]

    def step(x: Tensor, labels: Tensor, lr: float) -> None:
        for each in tuned:
            each.step(x, labels, lr)

    fit(step, images.augmented, labels, protocol, seed)
    logits = features([each.model.eval() for each in tuned], images.test())
    return [Result(of_one, each.model.state_dict()) for of_one, each in zip(logits, tuned, strict=True)]


class Tuned:
    """Network with a classifier on it, and the momentum buffers of what is not frozen (`requires_grad`)."""

    def __init__(self, network: nn.Module, classifier: nn.Linear, protocol: Finetune) -> None:
        self.model = nn.Sequential(OrderedDict(backbone=network, classifier=classifier)).train()
        self.optimizer = protocol.optimizer
        classifier_rate = (protocol.classifier_lr or protocol.optimizer.lr) / protocol.optimizer.lr
        self.relative_rates = {
            weights: relative
            for part, relative in ((network, 1.0), (classifier, classifier_rate))
            for weights in part.parameters()
            if weights.requires_grad
        }
        self.momentum_buffers = [torch.zeros_like(weights) for weights in self.relative_rates]

    def step(self, x: Tensor, labels: Tensor, lr: float) -> None:
        """Take a step on images x: [B, C, H, W], labels: [B]; `lr` is the network's.

        An image alone is passed over, since it has no batch statistics.
        """
        if len(x) == 1:
            return
        loss = F.cross_entropy(self.model(x), labels)
        gradients = torch.autograd.grad(loss, list(self.relative_rates), allow_unused=True)
        for (weights, relative), gradient, momentum_buffer in zip(
            self.relative_rates.items(), gradients, self.momentum_buffers, strict=True
        ):
            if gradient is not None:  # as torch.optim has it: what has no part in the loss stays as it is
                # Laid out in memory as the weights are, which a gradient need not be.
                decayed = (self.optimizer.weight_decay * weights.detach()).add_(gradient)
                sgd_step(weights, decayed, momentum_buffer, lr * relative, self.optimizer.momentum)
