"""The stage calibrate: from the weights of the widest network to plain narrow networks.

As in the official workers/linear.py: at each width, passes in training mode over the training images of the linear
evaluation, with running statistics as exponential averages. One process sees every image.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn

from us3l.data.images import first_view, open_images
from us3l.data.store import Store, open_store
from us3l.evaluation.calibration import calibrate_batch_norms
from us3l.models.backbones.backbone import Backbone
from us3l.models.pruning import prune
from us3l.models.saved_network import save_network
from us3l.models.slimmable import narrow, switch_batch_norms
from us3l.params.runs import PruneRun
from us3l.params.sampling import width_label
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.provenance import record
from us3l.pipeline.requirements import require_data, require_params, require_place
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.utils import checkpoint
from us3l.utils.records import write_record


def calibrate(job: RunStage, device: torch.device) -> None:
    """Write the narrow network of every width of the run, and a record of them.

    Raises UserError where the checkpoint is not this run's.
    """
    run, seed = job.run, job.seed
    store = open_store(run.data.folder)
    backbone, widest = Backbone(run.backbone, store.channels), run.producer("pretrain").sampling.widest
    weights, seal = _open_checkpoint(job, store, backbone, widest)
    [identity] = job.identities(OpenedSeals(store.sha256, {run.checkpoint(seed): seal})).values()
    start = time.monotonic()
    networks = {width: network.to(device) for width, network in _cut(run, weights, backbone, store).items()}
    images, views = open_images(store.train, device), run.data.dataset.views
    calibrate_batch_norms(list(networks.values()), run.protocol.calibration, images, views, seed)
    seals = {}
    for width, network in networks.items():
        shape = widest if isinstance(run.run, PruneRun) else width  # a pruned network keeps its shape
        architecture, about = (run.backbone, shape, store.channels), {**identity, "width": width}
        seals[width_label(width)] = save_network(run.network(seed, width), network, *architecture, about)
    facts = record(identity, device, time.monotonic() - start)
    write_record(job.record, {**facts, "networks": seals})


def _open_checkpoint(job: RunStage, store: Store, backbone: Backbone, widest: float) -> tuple[dict[str, Tensor], Any]:
    """Open the run's checkpoint: return the backbone's weights and the seal."""
    path, training = job.run.checkpoint(job.seed), RunStage(job.run.producer("pretrain"), "pretrain", job.seed)
    tensors, about = checkpoint.load(path)
    require_place(path, about, "pretrain", seed=job.seed)
    require_params(path, about, training.stage_params, "pretrain")
    require_data(path, about, store.sha256, "pretrain")
    weights = {name.removeprefix("backbone."): each for name, each in tensors.items() if name.startswith("backbone.")}
    expected = dict(backbone.build(widest).named_parameters())
    checkpoint.require_shapes(path, switch_batch_norms(weights, widest), expected, backbone.name, widest)
    return weights, about["seal"]


def _cut(run: RunPlan, weights: dict[str, Tensor], backbone: Backbone, store: Store) -> dict[float, nn.Module]:
    """Cut out the narrow networks: the leading channels, or for pruning those with the largest norms."""
    if isinstance(run.run, PruneRun):
        images, views = open_images(store.test, torch.device("cpu")), run.data.dataset.views
        example = first_view(images, views.test, views.normalize)
        widest, criterion = switch_batch_norms(weights, 1.0), run.run.criterion
        return {width: prune(widest, backbone.build, width, criterion, example) for width in run.widths}
    return {width: narrow(switch_batch_norms(weights, width), backbone.build(width)) for width in run.widths}
