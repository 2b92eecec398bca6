"""Linear evaluation of one network after the other; every epoch computes everything from the pixels to the loss."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from us3l.params.protocols.linear import Linear


def train_each(
    networks: Sequence[nn.Module], loaded: DataLoader, classes: int, protocol: Linear, device: torch.device
) -> None:
    """Train a linear classifier on each network's features for the epochs of the protocol."""
    for network in networks:
        assert isinstance(network.num_features, int)
        classifier = nn.Linear(network.num_features, classes).to(device)
        settings = protocol.optimizer
        optimizer = torch.optim.SGD(
            classifier.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay, foreach=False
        )
        for _ in range(protocol.epochs):
            _epoch(network, classifier, optimizer, loaded, device)


def _epoch(
    network: nn.Module,
    classifier: nn.Module,
    optimizer: torch.optim.Optimizer,
    loaded: DataLoader,
    device: torch.device,
) -> float:
    """Train for an epoch, and return the sum of the losses, for printing."""
    total = 0.0
    for (images,), labels in loaded:
        with torch.no_grad():
            features = network(images.to(device, non_blocking=True))
        loss = F.cross_entropy(classifier(features), labels.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total
