"""The evaluation stages: from a run's narrow networks to one record (JSON) for each width."""

import time
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from us3l.data.resident import resident
from us3l.data.store import Store, open_store
from us3l.evaluation.features import EvaluationImages
from us3l.evaluation.metrics import score
from us3l.models.backbones.custom import require_features
from us3l.models.complexity import cost
from us3l.models.pruning import keep_pruned
from us3l.models.saved_network import open_network
from us3l.params.runs import PruneRun
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.provenance import identify, record, require_params, require_place, require_recipe
from us3l.utils.errors import UserError
from us3l.utils.records import write_record


class PredictLogits(Protocol):
    """Evaluation protocol: from networks in evaluation mode on the device to the logits of each."""

    def __call__(self, networks: list[nn.Module], images: EvaluationImages, protocol: Any) -> list[Tensor]:
        """Return the logits of each network [test images, classes]."""
        ...


def evaluate(plan: RunPlan, seed: int, device: torch.device, predict_logits: PredictLogits) -> None:
    """Write one JSON for each width of the run.

    Raises UserError where a network or the data set is not as expected.
    """
    store, kind, start = open_store(plan.data.folder), plan.protocol.kind, time.monotonic()
    opened = networks_to_evaluate(plan, seed, store)
    networks = [network.to(device) for network, _ in opened]
    if isinstance(plan.maker("calibrate").run, PruneRun):
        keep_pruned(networks)
    images = EvaluationImages(store, plan.data.dataset.views, seed, device)
    example = images.example
    for width, network in zip(plan.widths, networks, strict=True):
        require_features(f"{plan.backbone} at width {width}", network, example)
    logits = predict_logits(networks, images, plan.protocol)
    labels = resident(store.test.labels, torch.device("cpu"))
    scores = [score(each.cpu(), labels) for each in logits]
    seconds = (time.monotonic() - start) / len(networks)
    where = {"study": plan.study, "run": plan.name, "protocol": kind, "dataset": plan.data.name}
    for width, network, (_, origin), result in zip(plan.widths, networks, opened, scores, strict=True):
        identity = identify(kind, plan.recipe(kind), **origin, seed=seed, width=width)
        size = cost(network.eval(), example, images.classes)
        facts = record(identity, device, seconds)
        write_record(plan.evaluation(seed, width), {**where, **result, **size, **facts})


def networks_to_evaluate(plan: RunPlan, seed: int, store: Store) -> list[tuple[nn.Module, dict[str, str]]]:
    """The network of each width of a run, in evaluation mode, with the seals of all that its evaluation comes from.

    Raises UserError where one is of another seed or width than its name says, was made by another recipe than today's,
    or sees images of other channels.
    """
    return [_to_evaluate(plan, seed, width, store) for width in plan.widths]


def _to_evaluate(plan: RunPlan, seed: int, width: float, store: Store) -> tuple[nn.Module, dict[str, str]]:
    path, maker = plan.network(seed, width), plan.maker("calibrate")
    network, about = open_network(path)
    require_place(path, about, "calibrate", seed=seed, width=width)
    if maker.data is plan.data:
        require_recipe(path, about, maker.recipe("calibrate"), store.sha256, "calibrate")
    else:
        require_params(path, about, maker.recipe("calibrate"), "calibrate")
    sees, there = about["architecture"]["in_channels"], store.channels
    if sees != there:
        raise UserError(f"{path}: sees images of {sees} channels, and those of {plan.data.name} have {there}")
    return network, {"data": store.sha256, "checkpoint": about["checkpoint"], "network": about["seal"]}
