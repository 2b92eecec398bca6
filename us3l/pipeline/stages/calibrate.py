"""Per-width BatchNorm calibration: from the weights of the widest network to plain narrow networks.

Official workers/linear.py: at the chosen width, in training mode, passes over the training images of the linear
evaluation, running statistics as exponential averages. One process, so every image counts.
"""

import time

import torch
from torch import Tensor, nn

from us3l.data.images import first_view, open_images
from us3l.data.store import Store, open_store
from us3l.evaluation.calibration import calibrate_batch_norms
from us3l.models.backbones.backbone import Backbone
from us3l.models.pruning import pruned
from us3l.models.saved_network import save_network
from us3l.models.slimmable import Builder, narrow, of_width
from us3l.params.runs import PruneRun
from us3l.params.sampling import width_label
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.provenance import identify, record, require_place, require_recipe
from us3l.utils import checkpoint
from us3l.utils.records import write_record


def calibrate(plan: RunPlan, seed: int, device: torch.device) -> None:
    """Write the narrow network of every width of the run, and what they came from.

    Raises UserError where the checkpoint is not this run's.
    """
    store = open_store(plan.data.folder)
    path, channels, trained = plan.checkpoint(seed), store.channels, plan.maker("pretrain")
    tensors, about = checkpoint.load(path)
    require_place(path, about, "pretrain", seed=seed)
    require_recipe(path, about, trained.recipe("pretrain"), store.sha256, "pretrain")
    weights = {name.removeprefix("backbone."): each for name, each in tensors.items() if name.startswith("backbone.")}
    widest = trained.run.sampling.widest

    def build(width: float) -> nn.Module:
        return Backbone(plan.backbone, channels).build(width)

    expected = dict(build(widest).named_parameters())
    checkpoint.require_shapes(path, of_width(weights, widest), expected, plan.backbone, widest)
    origin = {"data": store.sha256, "checkpoint": about["seal"], "seed": seed}
    identity = identify("calibrate", plan.recipe("calibrate"), **origin)
    start = time.monotonic()
    networks = {width: network.to(device) for width, network in _cut(plan, weights, build, store).items()}
    images, views = open_images(store.train, device), plan.data.dataset.views
    calibrate_batch_norms(list(networks.values()), plan.protocol.calibration, images, views, seed)
    seals = {}
    for width, network in networks.items():
        shape = widest if isinstance(plan.run, PruneRun) else width  # a pruned network keeps its shape
        architecture, about = (plan.backbone, shape, channels), {**identity, "width": width}
        seals[width_label(width)] = save_network(plan.network(seed, width), network, *architecture, about)
    facts = record(identity, device, time.monotonic() - start)
    write_record(plan.calibration(seed), {**facts, "networks": seals})


def _cut(plan: RunPlan, weights: dict[str, Tensor], build: Builder, store: Store) -> dict[float, nn.Module]:
    """The narrow networks: of a slimmable one the leading channels, of a pruned one those that weigh most."""
    if isinstance(plan.run, PruneRun):
        images, views = open_images(store.test, torch.device("cpu")), plan.data.dataset.views
        example = first_view(images, views.test, views.normalize)
        widest = of_width(weights, 1.0)
        return {width: pruned(widest, build, width, plan.run.criterion, example) for width in plan.widths}
    return {width: narrow(of_width(weights, width), build(width)) for width in plan.widths}
