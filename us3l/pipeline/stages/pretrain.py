"""The stage pretrain: from a prepared data set to the weights of the widest network, through any interruption."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l.data.images import first_view, open_images
from us3l.data.store import Store, open_store
from us3l.data.stream import Stream
from us3l.models.backbones.backbone import Backbone
from us3l.models.official_checkpoint import import_backbone
from us3l.models.saved_network import add_backbone_prefix
from us3l.params.runs import ImportRun, PretrainRun, UntrainedRun
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.provenance import record
from us3l.pipeline.requirements import require_params, require_place
from us3l.pipeline.run_directory import run_directory
from us3l.pipeline.stages.seals import OpenedSeals
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
WIDTHS_TRIED = 16  # of a range, besides its ends; each is built on the meta device, in milliseconds


def pretrain(job: RunStage, world: World, runs: Path, save_every: float) -> None:
    """Train one run with one seed and write its checkpoint and its record (JSON).

    The state is saved in `runs`/<fingerprint>/ every `save_every` seconds, until the results are written.
    Raises UserError for what the user can mend, Interrupted after SIGTERM or SIGINT.
    """
    run, seed, settings = job.run, job.seed, job.run.run
    store = open_store(run.data.folder)
    teacher, seals = (
        load_teacher(run.weights_from, seed, store.channels, world.device) if run.weights_from else (None, {})
    )
    [identity] = job.identities(OpenedSeals(store.sha256, seals)).values()
    backbone = _fitted_backbone(run, store)

    def write(weights: dict[str, Tensor], history: list[dict[str, Any]], seconds: float, **more: Any) -> None:
        facts = record(identity, world.device, seconds, world.size)
        seal = checkpoint.save(run.checkpoint(seed), weights, identity)
        write_record(job.record, {**facts, "checkpoint": seal, "epochs": history, **more})

    match settings:
        case UntrainedRun():
            write(_initial_weights(backbone, seed), [], 0.0)
        case ImportRun():
            mapped = import_backbone(Path(settings.checkpoint), settings.sha256, settings.backbone, store.channels)
            write(add_backbone_prefix(mapped.weights), [], 0.0, official=mapped.facts)
        case PretrainRun():
            _require_a_batch(job, settings, store)
            with _held_folder(job, runs / fingerprint(identity), world) as folder:
                if folder:
                    train_step = build_train_step(settings, backbone, len(store.classes), seed, world, teacher)
                    stream, label = _stream(job, settings, store, world), f"{run.study} {run.name} seed {seed}"
                    trainer = Trainer(settings, train_step, stream, folder / STATE, save_every, label)
                    trainer.run_to_the_end()
                    if world.is_main:
                        write(train_step.student.weights.parameters, trainer.history, trainer.seconds)


@contextmanager
def _held_folder(job: RunStage, folder: Path, world: World) -> Iterator[Path | None]:
    """Hold the run directory in the main process; yield None if another training wrote the results in the meantime."""
    before = _mtime_ns(job.record)
    with run_directory(folder) if world.is_main else nullcontext():
        is_done = world.is_main and _is_done_meanwhile(job.record, before, folder.name)
        yield None if world.any(is_done) else folder


def _stream(job: RunStage, settings: PretrainRun, store: Store, world: World) -> Stream:
    normalize, shuffled = job.run.data.dataset.views.normalize, settings.method.name == "moco"
    return Stream(store.train, settings.batch, job.run.trained_views, normalize, job.seed, world, shuffled)


def load_teacher(source: RunPlan, seed: int, in_channels: int, device: torch.device) -> tuple[Encoder, dict[Path, str]]:
    """Load a run's network as a frozen teacher; return the seal of its checkpoint, by path, too.

    Raises UserError where the checkpoint is missing, or not of this run.
    """
    path, settings = source.checkpoint(seed), source.run
    assert isinstance(settings, PretrainRun)  # as the check of params.yaml requires
    tensors, about = checkpoint.load(path)
    require_place(path, about, "pretrain", seed=seed)
    require_params(path, about, RunStage(source, "pretrain", seed).stage_params, "pretrain")
    encoder = frozen_teacher(settings, Backbone(settings.backbone, in_channels), path, tensors, device)
    return encoder, {path: about["seal"]}


def _require_a_batch(job: RunStage, settings: PretrainRun, store: Store) -> None:
    size, images = settings.batch.size, len(store.train.labels)
    if size > images:
        key, data = f"studies.{job.run.study}.runs.{job.run.name}.batch.size", job.run.data.name
        raise UserError(f"{key} is {size}, but {data} has only {images} training images: take a smaller one")


def _fitted_backbone(run: RunPlan, store: Store) -> Backbone:
    """Return the run's backbone, fitted to the size of its images.

    Raises UserError where a custom backbone does not take them at a width of the run, or cannot be built at a width of
    the training.
    """

    def load_image() -> Tensor:
        images = open_images(store.train, torch.device("cpu"))
        return first_view(images, run.trained_views[0], run.data.dataset.views.normalize)

    backbone, sampling = Backbone(run.backbone, store.channels), run.sampling
    fitted = backbone.fitted_to(load_image, dict.fromkeys([sampling.widest, *run.widths]))
    if isinstance(run.run, PretrainRun):
        key = f"studies.{run.study}.runs.{run.name}.sampling"
        backbone.require_widths(probe_widths(sampling, WIDTHS_TRIED), f"every width of {key}, {sampling}, must work")
    return fitted


def _mtime_ns(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _is_done_meanwhile(record: Path, before: int | None, fingerprint: str) -> bool:
    """Tell whether another training of the same identity wrote its results while this one waited for the folder."""
    return _mtime_ns(record) not in (None, before) and read_record(record)["fingerprint"] == fingerprint


def _initial_weights(backbone: Backbone, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return add_backbone_prefix(dict(backbone.build(1.0).named_parameters()))
