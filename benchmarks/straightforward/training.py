"""A training step as a reader of the paper would write it: width by width, view by view, tensor by tensor.

Shards take the place of GPUs: their gradients are accumulated one after the other.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.straightforward.penalty import penalty
from benchmarks.straightforward.sliced import set_width, sliced
from us3l.losses.registry import at_least_float32
from us3l.models.backbones.backbone import Backbone
from us3l.models.heads import build_network
from us3l.params.runs import PretrainRun

Views = tuple[Tensor, Tensor]  # [B, C, H, W] each


class Trainer:
    """A slimmable network, its momentum encoder and its optimizer."""

    def __init__(self, run: PretrainRun, channels: int, device: torch.device) -> None:
        self.run, self.method = run, run.method
        plain = Backbone(run.backbone, channels).build(1.0)
        assert run.method.momentum is not None  # as `benchmarks.setting.setting` requires
        self.momentum = run.method.momentum
        self.network = sliced(build_network(run.method, plain, plain, classes=0)).to(device)
        self.encoder = copy.deepcopy(self.online).requires_grad_(False)
        settings = run.optimizer
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay, foreach=False
        )

    def step(self, shards: Sequence[Views], widths: Sequence[float], epoch: float, lr: float) -> list[float]:
        """Train one step, and return the loss of each width without the penalty.

        epoch: as in `us3l.training.step.TrainStep`.
        """
        losses: list[float] = []
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for width in widths:
            if width == widths[0]:
                move_encoder(self.encoder, self.online, self.momentum)
                targets = [self._encode(views) for views in shards]
            set_width(self.network, width)
            self.optimizer.zero_grad(set_to_none=False)
            losses.append(0.0)
            for views, target in zip(shards, targets, strict=True):
                loss = self._loss(views, target, width == widths[0]) / len(shards)
                loss.backward()
                losses[-1] += loss.item()
            if self.run.regularizer:
                named = self.network.named_parameters()
                penalty(named, self.run.regularizer, int(epoch), self.run.epochs, width).backward()
            self.optimizer.step()
        return losses

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(*(self.network.get_submodule(name) for name in ("backbone", "projector")))

    @torch.no_grad()
    def _encode(self, views: Views) -> Views:
        with self._precision():
            outputs = [self.encoder(view) for view in views]
        first, second = at_least_float32(outputs)
        return first, second

    def _loss(self, views: Views, target: Views, widest: bool) -> Tensor:
        """Compute the loss over both pairs of different views."""
        head = "predictor" if widest else "distillation_predictor"
        with self._precision():
            outputs = [self.network(view, head).prediction for view in views]
        first, second = at_least_float32(outputs)
        pairs = ((first, target[1]), (second, target[0]))
        name = self.method.base_loss if widest else self.method.distillation_loss
        strength = 1.0 if widest else self.method.distillation_strength
        if name == "cosine":
            one, other = (-F.cosine_similarity(*pair).mean() for pair in pairs)
        else:
            one, other = (_infonce(*pair, self.method.temperature) for pair in pairs)
        return strength * (one + other) / 2

    def _precision(self) -> torch.autocast:
        device = next(self.network.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.run.precision == "bfloat16")


def move_encoder(encoder: nn.Module, online: nn.Module, momentum: float) -> None:
    """Move the momentum encoder towards the online network, one parameter after the other."""
    for slow, fast in zip(encoder.parameters(), online.parameters(), strict=True):
        slow.data = slow.data * momentum + fast.data * (1 - momentum)


def _infonce(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE as its formula says: the exponentials of all pairs of different views, then the logarithm."""
    one, other = F.normalize(one, dim=1), F.normalize(other, dim=1)
    embeddings = torch.cat((one, other))
    similar = torch.exp(embeddings @ embeddings.T / temperature)
    others = ~torch.eye(len(similar), dtype=torch.bool, device=similar.device)
    everything = similar[others].view(len(similar), -1).sum(1)
    positive = torch.exp((one * other).sum(1) / temperature)
    return -torch.log(torch.cat((positive, positive)) / everything).mean()
