"""Pretraining: from a prepared data set to the weights of the widest network, interrupted or not."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l.data.images import first_view, open_images
from us3l.data.store import Store, open_store
from us3l.data.stream import Stream
from us3l.models.backbones.backbone import Backbone
from us3l.models.official_checkpoint import Mapped, import_backbone
from us3l.models.saved_network import of_backbone
from us3l.params.runs import ImportRun, PretrainRun, UntrainedRun
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.provenance import fingerprint, identify, record, require_params, require_place
from us3l.pipeline.run_directory import run_directory
from us3l.training.build import build_train_step
from us3l.training.frozen_teacher import frozen_teacher
from us3l.training.micro_batches import Encoder
from us3l.training.trainer import Trainer
from us3l.training.width_sampling import probe_widths
from us3l.utils import checkpoint
from us3l.utils.distributed import World
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

STATE = "state.safetensors"
WIDTHS_TRIED = 16  # of a range, besides its ends: each is built without storage, in milliseconds


def pretrain(plan: RunPlan, seed: int, world: World, runs: Path, save_every: float) -> None:
    """Train one run with one seed and write its checkpoint and its record (JSON).

    Progress is kept in `runs`/<fingerprint>/, saved every `save_every` seconds, until the results are written.
    Raises UserError for what the user can mend, Interrupted after SIGTERM or SIGINT.
    """
    store = open_store(plan.data.folder)
    origin, teacher = {"data": store.sha256, "seed": seed}, None
    if plan.source:
        teacher, origin["teacher"] = load_teacher(plan.source, seed, store.channels, world.device)
    identity = identify("pretrain", plan.recipe("pretrain"), **origin)
    backbone = _fitted_backbone(plan, store)

    def write(weights: dict[str, Tensor], history: list[dict[str, Any]], seconds: float, **more: Any) -> None:
        facts = record(identity, world.device, seconds, world.size)
        seal = checkpoint.save(plan.checkpoint(seed), weights, identity)
        write_record(plan.training(seed), {**facts, "checkpoint": seal, "epochs": history, **more})

    if isinstance(plan.run, UntrainedRun):
        write(_initial_weights(plan.run, store, seed), [], 0.0)
        return
    if isinstance(plan.run, ImportRun):
        mapped = _imported(plan.run, store)
        write(of_backbone(mapped.weights), [], 0.0, official=mapped.facts)
        return
    _require_a_batch(plan, store)
    folder, record_there = runs / fingerprint(identity), _mtime_ns(plan.training(seed))
    with run_directory(folder) if world.is_main else nullcontext():
        if world.any(world.is_main and _is_done_meanwhile(plan.training(seed), record_there, folder.name)):
            return
        train_step = build_train_step(plan.run, backbone, len(store.classes), seed, world, teacher)
        trainer = Trainer(
            plan.run, train_step, _stream(plan, store, seed, world), folder / STATE, save_every, _label(plan, seed)
        )
        trainer.run_to_the_end()
        if world.is_main:
            write(train_step.student.weights.parameters, trainer.history, trainer.seconds)


def _stream(plan: RunPlan, store: Store, seed: int, world: World) -> Stream:
    normalize, shuffled = plan.data.dataset.views.normalize, plan.run.method.name == "moco"
    return Stream(store.train, plan.run.batch, plan.trained_views, normalize, seed, world, shuffled)


def _label(plan: RunPlan, seed: int) -> str:
    return f"{plan.study} {plan.name} seed {seed}"


def load_teacher(source: RunPlan, seed: int, in_channels: int, device: torch.device) -> tuple[Encoder, str]:
    """Load the frozen network of a run, and the seal of its checkpoint.

    Raises UserError where the checkpoint is missing, or not of this run.
    """
    path = source.checkpoint(seed)
    tensors, about = checkpoint.load(path)
    require_place(path, about, "pretrain", seed=seed)
    require_params(path, about, source.recipe("pretrain"), "pretrain")
    backbone = Backbone(source.run.backbone, in_channels)
    return frozen_teacher(source.run, backbone, path, tensors, device), about["seal"]


def _require_a_batch(plan: RunPlan, store: Store) -> None:
    size, images = plan.run.batch.size, len(store.train.labels)
    if size > images:
        key = f"studies.{plan.study}.runs.{plan.name}.batch.size"
        raise UserError(f"{key} is {size}, but {plan.data.name} has only {images} training images: take a smaller one")


def _fitted_backbone(plan: RunPlan, store: Store) -> Backbone:
    """The run's backbone for its images.

    Raises UserError where a custom one does not take them at a run's width, or cannot be built at a trained one.
    """

    def load_image() -> Tensor:
        images = open_images(store.train, torch.device("cpu"))
        return first_view(images, plan.trained_views[0], plan.data.dataset.views.normalize)

    sampling, backbone = plan.run.sampling, Backbone(plan.backbone, store.channels)
    fitted = backbone.fitted_to(load_image, dict.fromkeys([sampling.widest, *plan.widths]))
    if isinstance(plan.run, PretrainRun):
        key = f"studies.{plan.study}.runs.{plan.name}.sampling"
        backbone.require_widths(probe_widths(sampling, WIDTHS_TRIED), f"every width of {key}, {sampling}, must work")
    return fitted


def _mtime_ns(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _is_done_meanwhile(record: Path, before: int | None, fingerprint: str) -> bool:
    """Whether another training of the same recipe wrote its results while this one waited for the run directory."""
    return _mtime_ns(record) not in (None, before) and read_record(record)["fingerprint"] == fingerprint


def _initial_weights(run: UntrainedRun, store: Store, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    network = Backbone(run.backbone, store.channels).build(1.0)
    return of_backbone(dict(network.named_parameters()))


def _imported(run: ImportRun, store: Store) -> Mapped:
    return import_backbone(Path(run.checkpoint), run.sha256, run.backbone, store.channels)
