"""The evaluation stages: from a run's narrow networks to one record (JSON) for each width."""

import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from us3l.data.resident import to_device
from us3l.data.store import Store, open_store
from us3l.evaluation.features import EvaluationImages
from us3l.evaluation.metrics import score
from us3l.evaluation.result import Result
from us3l.models.backbones.custom import require_features
from us3l.models.complexity import cost
from us3l.models.pruning import freeze_pruned_channels
from us3l.models.saved_network import open_network
from us3l.params.runs import PruneRun
from us3l.params.sampling import width_label
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.probes.comparison import Outcome
from us3l.pipeline.probes.evaluation import short_protocol
from us3l.pipeline.probes.outcome import describe
from us3l.pipeline.probes.sample import sample, sample_widths
from us3l.pipeline.provenance import record
from us3l.pipeline.requirements import require_data, require_network, require_params, require_place
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.utils import checkpoint
from us3l.utils.errors import UserError
from us3l.utils.records import write_record


class EvaluateNetworks(Protocol):
    """An evaluation protocol, applied to networks in evaluation mode on the device."""

    def __call__(self, networks: list[nn.Module], images: EvaluationImages, protocol: Any) -> list[Result]:
        """Compute the logits of each network, and train what they need."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of some widths' networks on a data set, or on a sample of one."""

    job: RunStage
    store: Store
    networks: dict[float, nn.Module]  # in evaluation mode
    protocol: Any  # of the kind of the stage, whose code has no other kind
    device: torch.device

    def results(self, evaluate_networks: EvaluateNetworks) -> dict[float, tuple[Result, dict[str, Any]]]:
        """Return each width's logits and trained weights, with its accuracies and cost, and the shape of an image."""
        run, networks = self.job.run, [network.to(self.device) for network in self.networks.values()]
        if isinstance(run.producer("calibrate").run, PruneRun):
            freeze_pruned_channels(networks)
        images = EvaluationImages(self.store, run.data.dataset.views, self.job.seed, self.device)
        example = images.example
        for width, network in zip(self.networks, networks, strict=True):
            require_features(f"{run.backbone} at width {width}", network, example)
        results = [each.on_cpu() for each in evaluate_networks(networks, images, self.protocol)]
        labels = to_device(self.store.test.labels, torch.device("cpu"))
        facts = [
            {
                **score(result.logits, labels),
                **cost(network.eval(), example, images.classes),
                "image": [*example.shape[1:]],
            }
            for result, network in zip(results, networks, strict=True)
        ]
        return dict(zip(self.networks, zip(results, facts, strict=True), strict=True))


def evaluate(job: RunStage, device: torch.device, evaluate_networks: EvaluateNetworks) -> None:
    """Evaluate the network of each width of the run; write a record (JSON) for each, and what was trained for it.

    Raises UserError where a network or the data set is not as expected.
    """
    run, store = job.run, open_store(job.run.data.folder)
    require_network(RunStage(run.producer("calibrate"), "calibrate", job.seed))
    networks, seals = networks_to_evaluate(job, store)
    probed = _probe(job, store, networks, device, evaluate_networks)
    start = time.monotonic()
    results = Evaluation(job, store, networks, run.protocol, device).results(evaluate_networks)
    seconds = (time.monotonic() - start) / len(networks)
    names = {"study": run.study, "run": run.name, "protocol": job.stage, "dataset": run.data.name}
    prepared_size = getattr(run.data.dataset.source, "image_size", None)
    identities = job.identities(OpenedSeals(store.sha256, seals))
    for (path, identity), (width, (result, facts)) in zip(identities.items(), results.items(), strict=True):
        about = {**identity, "image": facts["image"], "prepared_size": prepared_size, "classes": [*store.classes]}
        kept = _keep_trained(run.classifier(job.seed, width), result, about)
        write_record(path, {**names, **facts, **kept, **record(identity, device, seconds), "probe": probed})


def _keep_trained(path: Path, result: Result, about: dict[str, Any]) -> dict[str, str]:
    """Write the weights that were trained for a result, if any; return their seal as the record states it."""
    return {"classifier": checkpoint.save(path, result.trained, about)} if result.trained else {}


def probe(job: RunStage, device: torch.device, evaluate_networks: EvaluateNetworks) -> Outcome:
    """Return the outcome of the evaluation's probe, with the present code."""
    store = open_store(job.run.data.folder)
    return _probe(job, store, networks_to_evaluate(job, store)[0], device, evaluate_networks)


def _probe(
    job: RunStage,
    store: Store,
    networks: dict[float, nn.Module],
    device: torch.device,
    evaluate_networks: EvaluateNetworks,
) -> Outcome:
    """Evaluate copies of a few networks on a sample of the images, by the protocol in short.

    Accuracies by the labels of other images show which ranks count: by their own, all of a few may be the first.
    """
    few = {width: deepcopy(networks[width]) for width in sample_widths(job.run.widths)}
    short = Evaluation(job, sample(store), few, short_protocol(job.run.protocol), device)
    results = short.results(evaluate_networks)
    others = to_device(short.store.test.labels, torch.device("cpu")).roll(1)
    return {
        width_label(width): {
            **describe({"logits": result.logits}),
            **facts,
            "by_other_labels": score(result.logits, others),
        }
        for width, (result, facts) in results.items()
    }


def networks_to_evaluate(job: RunStage, store: Store) -> tuple[dict[float, nn.Module], dict[Path, str]]:
    """Open a run's networks by width, in evaluation mode; return the seals of networks and checkpoint, too.

    Raises UserError where a network is of another seed or width than its name says, was made with other params than the
    current ones, or takes images with another number of channels.
    """
    run, producer = job.run, RunStage(job.run.producer("calibrate"), "calibrate", job.seed)
    networks: dict[float, nn.Module] = {}
    seals: dict[Path, str] = {}
    for width in run.widths:
        path = run.network(job.seed, width)
        network, about = open_network(path)
        require_place(path, about, "calibrate", seed=job.seed, width=width)
        require_params(path, about, producer.stage_params, "calibrate")
        if producer.run.data is run.data:
            require_data(path, about, store.sha256, "calibrate")
        sees, given = about["architecture"]["in_channels"], store.channels
        if sees != given:
            raise UserError(f"{path}: sees images of {sees} channels, and those of {run.data.name} have {given}")
        networks[width] = network
        seals |= {run.checkpoint(job.seed): about["checkpoint"], path: about["seal"]}
    return networks, seals
