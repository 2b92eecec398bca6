"""The stage calibrate: from the weights of the widest network to plain narrow networks.

As in the official workers/linear.py: at each width, passes in training mode over the training images of the linear
evaluation, with running statistics as exponential averages. One process sees every image.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from us3l.data.images import first_view, open_images
from us3l.data.store import Store, open_store
from us3l.evaluation.calibration import calibrate_batch_norms
from us3l.models.backbones.backbone import Backbone
from us3l.models.pruning import prune
from us3l.models.saved_network import backbone_weights, save_network
from us3l.models.slimmable import narrow, switch_batch_norms
from us3l.params.protocols.calibration import Calibration
from us3l.params.runs import PruneRun
from us3l.params.sampling import width_label
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.probes.comparison import Outcome
from us3l.pipeline.probes.evaluation import short_calibration
from us3l.pipeline.probes.outcome import describe, flattened
from us3l.pipeline.probes.sample import sample, sample_widths
from us3l.pipeline.provenance import record
from us3l.pipeline.requirements import require_data, require_network, require_params, require_place
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.utils import checkpoint
from us3l.utils.records import write_record


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a calibration: data set, and the backbone's weights with the seal of their checkpoint."""

    job: RunStage
    store: Store
    backbone: Backbone
    widest: float
    weights: dict[str, Tensor]
    seal: str


def calibrate(job: RunStage, device: torch.device) -> None:
    """Write the narrow network of every width of the run, and a record of them.

    Raises UserError where the checkpoint is not this run's.
    """
    run, seed = job.run, job.seed
    require_network(RunStage(run.producer("pretrain"), "pretrain", seed))
    inputs = open_inputs(job)
    [identity] = job.identities(OpenedSeals(inputs.store.sha256, {run.checkpoint(seed): inputs.seal})).values()
    probed = _probe(inputs, device)
    start = time.monotonic()
    networks = _calibrated(inputs, inputs.store, run.widths, run.protocol.calibration, device)
    seals = {}
    for width, network in networks.items():
        shape = inputs.widest if isinstance(run.run, PruneRun) else width  # a pruned network keeps its shape
        architecture, about = (run.backbone, shape, inputs.store.channels), {**identity, "width": width}
        seals[width_label(width)] = save_network(run.network(seed, width), network, *architecture, about)
    facts = record(identity, device, time.monotonic() - start)
    write_record(job.record, {**facts, "networks": seals, "probe": probed})


def calibrated_network(job: RunStage, width: float, device: torch.device) -> nn.Module:
    """Cut out and calibrate the network of one width, whether the run lists it or not; nothing is written.

    It has the bits that the stage would write. Raises UserError as `calibrate` does.
    """
    require_network(RunStage(job.run.producer("pretrain"), "pretrain", job.seed))
    inputs = open_inputs(job)
    network = _calibrated(inputs, inputs.store, [width], job.run.protocol.calibration, device)[width]
    return network.eval().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub


def probe(job: RunStage, device: torch.device) -> Outcome:
    """Return the outcome of the calibration's probe, with the present code."""
    return _probe(open_inputs(job), device)


def _probe(inputs: Inputs, device: torch.device) -> Outcome:
    """Calibrate a few widths on a sample of the images."""
    run = inputs.job.run
    widths, calibration = sample_widths(run.widths), short_calibration(run.protocol.calibration)
    networks = _calibrated(inputs, sample(inputs.store), widths, calibration, device)
    return {
        width_label(width): describe(
            {"parameters": flattened(network.parameters()), "statistics": flattened(network.buffers())}
        )
        for width, network in networks.items()
    }


def _calibrated(
    inputs: Inputs, store: Store, widths: Sequence[float], calibration: Calibration, device: torch.device
) -> dict[float, nn.Module]:
    """Cut out the networks of some widths, and calibrate them on the training images of a store."""
    run = inputs.job.run
    networks = {width: network.to(device) for width, network in _cut(inputs, widths).items()}
    images, views = open_images(store.train, device), run.data.dataset.views
    calibrate_batch_norms(list(networks.values()), calibration, images, views, inputs.job.seed)
    return networks


def open_inputs(job: RunStage) -> Inputs:
    """Open the data set and the run's checkpoint. Raises UserError where the checkpoint is not this run's."""
    run, store = job.run, open_store(job.run.data.folder)
    path, training = run.checkpoint(job.seed), RunStage(run.producer("pretrain"), "pretrain", job.seed)
    backbone, widest = Backbone(run.backbone, store.channels), training.run.sampling.widest
    tensors, about = checkpoint.load(path)
    require_place(path, about, "pretrain", seed=job.seed)
    require_params(path, about, training.stage_params, "pretrain")
    require_data(path, about, store.sha256, "pretrain")
    weights = backbone_weights(tensors)
    expected = dict(backbone.build(widest).named_parameters())
    checkpoint.require_shapes(path, switch_batch_norms(weights, widest), expected, backbone.name, widest)
    return Inputs(job, store, backbone, widest, weights, about["seal"])


def _cut(inputs: Inputs, widths: Sequence[float]) -> dict[float, nn.Module]:
    """Cut out narrow networks: the leading channels, or for pruning those with the largest norms."""
    run, weights, build = inputs.job.run, inputs.weights, inputs.backbone.build
    if isinstance(run.run, PruneRun):
        images, views = open_images(inputs.store.test, torch.device("cpu")), run.data.dataset.views
        example = first_view(images, views.test, views.normalize)
        widest, criterion = switch_batch_norms(weights, 1.0), run.run.criterion
        return {width: prune(widest, build, width, criterion, example) for width in widths}
    return {width: narrow(switch_batch_norms(weights, width), build(width)) for width in widths}
