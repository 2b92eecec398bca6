"""Linear evaluation: a linear classifier on the frozen features of each width, under one protocol.

Official workers/linear.py: evaluation mode while training, SGD, cross-entropy, the result after the last epoch. All
widths see the same batches, so that the images are augmented once.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.data.augment import augment, plain_view
from us3l.data.resident import resident
from us3l.data.store import open_store
from us3l.models import backbone
from us3l.models.vit import Attention
from us3l.networks import networks_to_evaluate
from us3l.params.data import Augmentation, Views
from us3l.params.evaluation import ProbeOptimizer, Protocol
from us3l.plan import RunPlan
from us3l.provenance import identify, record
from us3l.random import Purpose, permutation
from us3l.records import write_record
from us3l.schedule import learning_rate
from us3l.sgd import sgd_step, trusted

CHUNK = 1024  # images in a forward pass without gradients


class Probe:
    """One frozen network, and the linear classifier on its features."""

    def __init__(self, network: nn.Module, example: Tensor, classes: int, optimizer: ProbeOptimizer, seed: int) -> None:
        self.network = network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(self.features(example).shape[1], classes).to(example.device)
        self.weights = [parameter.detach() for parameter in self.head.parameters()]
        self.velocities = [torch.zeros_like(weights) for weights in self.weights]
        self.optimizer = optimizer

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return torch.cat([self.network(chunk) for chunk in x.split(CHUNK)])

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def learn(self, features: Tensor, labels: Tensor, lr: float) -> None:
        gradients = torch.autograd.grad(F.cross_entropy(self.head(features), labels), list(self.head.parameters()))
        for weights, gradient, velocity in zip(self.weights, gradients, self.velocities, strict=True):
            sgd_step(weights, self._with_decay(weights, gradient), velocity, lr, self.optimizer.momentum)

    def _with_decay(self, weights: Tensor, gradient: Tensor) -> Tensor:
        decay, trust = self.optimizer.weight_decay, self.optimizer.trust
        return gradient + decay * weights if trust is None else trusted(weights, gradient, decay, trust)


def linear(plan: RunPlan, seed: int, device: torch.device) -> None:
    """Write one JSON for each width of the run. Raises UserError where a network or the data set is not as expected."""
    store, views, protocol = open_store(plan.data.folder), plan.data.dataset.views, plan.protocol
    start = time.monotonic()
    networks, origins = zip(*networks_to_evaluate(plan, seed, store), strict=True)
    images, labels = resident(store.train.images, device), resident(store.train.labels, device)
    test = plain_view(resident(store.test.images, device), views.test, views.normalize)
    classes = len(store.classes)
    probes = [Probe(network.to(device), test[:1], classes, protocol.optimizer, seed) for network in networks]
    train(probes, images, labels, views, protocol, seed)
    answers = resident(store.test.labels, torch.device("cpu"))
    scores = [score(probe.logits(test).cpu(), answers) for probe in probes]
    seconds = (time.monotonic() - start) / len(probes)
    where = {"study": plan.study, "run": plan.name, "protocol": "linear", "dataset": plan.data.name}
    for width, result, origin in zip(plan.widths, scores, origins, strict=True):
        identity = identify("linear", plan.recipe("linear"), **origin, seed=seed, width=width)
        size = cost(plan.backbone, width, tuple(test.shape[1:]), classes)
        facts = record(identity, device, seconds)
        write_record(plan.evaluation(seed, width), {**where, **result, **size, **facts})


def train(probes: list[Probe], images: Tensor, labels: Tensor, views: Views, protocol: Protocol, seed: int) -> None:
    """Train every probe's classifier, all on the same batches.

    Images that are not augmented have the same features in every epoch, so these are computed once.
    """

    def view(samples: Tensor, epoch: int) -> Tensor:
        where = {"seed": seed, "purpose": Purpose.LINEAR_AUGMENT, "epoch": epoch, "samples": samples}
        return augment(images[samples], views.linear, views.normalize, **where)

    everything = torch.arange(len(images), device=images.device)
    constant = views.linear == Augmentation()
    known = [probe.features(view(everything, 0)) for probe in probes] if constant else None
    for epoch in range(protocol.epochs):
        lr = learning_rate(protocol.optimizer, epoch, protocol.epochs)
        order = permutation(seed, Purpose.LINEAR_ORDER, epoch, len(images), images.device)
        for samples in order.split(protocol.batch_size):
            x = None if known else view(samples, epoch)
            for index, probe in enumerate(probes):
                probe.learn(known[index][samples] if known else probe.features(x), labels[samples], lr)


def score(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Top-1 and top-5 accuracy in percent of logits [N, classes]; `interval` is Wilson's 95% interval of top-1.

    Of classes with equal logits the first is the answer; logits that are not numbers are a wrong one.
    """
    ranks = (logits.argsort(dim=1, descending=True, stable=True) == labels[:, None]).int().argmax(1)
    ranks[logits.isnan().any(1)] = logits.shape[1]
    correct, n = int((ranks == 0).sum()), len(labels)
    top5 = 100 * int((ranks < 5).sum()) / n if logits.shape[1] > 5 else None
    return {"top1": 100 * correct / n, "interval": wilson(correct, n), "top5": top5, "n": n}


def wilson(correct: int, n: int) -> list[float]:
    """Wilson's 95% interval of a proportion, in percent. (scipy.stats has it, and takes a second to import.)"""
    z, share = 1.959963984540054, correct / n
    centre = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return [100 * (centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]


@torch.no_grad()
def cost(name: str, width: float, image: tuple[int, ...], classes: int) -> dict[str, int]:
    """Parameters of the backbone, and multiply-accumulates of an image [C, H, W] through backbone and classifier."""
    network, macs = backbone(name, width, image[0]).eval(), []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if isinstance(module, Attention):  # queries with keys, and the weights with values: each token with all tokens
            macs.append(2 * output.numel() * output.shape[1])
        else:
            macs.append(output.numel() * module.weight[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Attention):
            module.register_forward_hook(count)
    features = network(torch.zeros(1, *image))
    parameters = sum(p.numel() for p in network.parameters())
    return {"parameters": parameters, "macs": sum(macs) + features.numel() * classes}
