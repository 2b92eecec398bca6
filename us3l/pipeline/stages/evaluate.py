"""The evaluation stages: from a run's narrow networks to one record (JSON) for each width."""

import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from us3l.data.resident import to_device
from us3l.data.store import Store, open_store
from us3l.evaluation.features import EvaluationImages
from us3l.evaluation.metrics import score
from us3l.models.backbones.custom import require_features
from us3l.models.complexity import cost
from us3l.models.pruning import freeze_pruned_channels
from us3l.models.saved_network import open_network
from us3l.params.runs import PruneRun
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.provenance import record
from us3l.pipeline.requirements import require_data, require_params, require_place
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.utils.errors import UserError
from us3l.utils.records import write_record


class PredictLogits(Protocol):
    """An evaluation protocol, applied to networks in evaluation mode on the device."""

    def __call__(self, networks: list[nn.Module], images: EvaluationImages, protocol: Any) -> list[Tensor]:
        """Compute the logits of each network, [test images, classes]."""
        ...


def evaluate(job: RunStage, device: torch.device, predict_logits: PredictLogits) -> None:
    """Evaluate the network of each width of the run, and write a record (JSON) for each.

    Raises UserError where a network or the data set is not as expected.
    """
    run, kind, start = job.run, job.stage, time.monotonic()
    store = open_store(run.data.folder)
    opened, seals = networks_to_evaluate(job, store)
    networks = [network.to(device) for network in opened]
    if isinstance(run.producer("calibrate").run, PruneRun):
        freeze_pruned_channels(networks)
    images = EvaluationImages(store, run.data.dataset.views, job.seed, device)
    example = images.example
    for width, network in zip(run.widths, networks, strict=True):
        require_features(f"{run.backbone} at width {width}", network, example)
    logits = predict_logits(networks, images, run.protocol)
    labels = to_device(store.test.labels, torch.device("cpu"))
    scores = [score(each.cpu(), labels) for each in logits]
    seconds = (time.monotonic() - start) / len(networks)
    names = {"study": run.study, "run": run.name, "protocol": kind, "dataset": run.data.name}
    identities = job.identities(OpenedSeals(store.sha256, seals))
    for network, (path, identity), result in zip(networks, identities.items(), scores, strict=True):
        size = cost(network.eval(), example, images.classes)
        facts = record(identity, device, seconds)
        write_record(path, {**names, **result, **size, **facts})


def networks_to_evaluate(job: RunStage, store: Store) -> tuple[list[nn.Module], dict[Path, str]]:
    """Open the network of each width of a run, in evaluation mode; return the seals of networks and checkpoint, too.

    Raises UserError where a network is of another seed or width than its name says, was made with other params than the
    current ones, or takes images with another number of channels.
    """
    run, producer = job.run, RunStage(job.run.producer("calibrate"), "calibrate", job.seed)
    params, networks = producer.stage_params, []
    seals: dict[Path, str] = {}
    for width in run.widths:
        path = run.network(job.seed, width)
        network, about = open_network(path)
        require_place(path, about, "calibrate", seed=job.seed, width=width)
        require_params(path, about, params, "calibrate")
        if producer.run.data is run.data:
            require_data(path, about, store.sha256, "calibrate")
        sees, given = about["architecture"]["in_channels"], store.channels
        if sees != given:
            raise UserError(f"{path}: sees images of {sees} channels, and those of {run.data.name} have {given}")
        networks.append(network)
        seals |= {run.checkpoint(job.seed): about["checkpoint"], path: about["seal"]}
    return networks, seals
