"""The stage pretrain: from a prepared data set to the weights of the widest network, through any interruption."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l.data.images import first_view, open_images
from us3l.data.store import Store, open_store
from us3l.data.stream import Stream
from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.registry import SMALLEST_IMAGES
from us3l.models.complexity import cost
from us3l.models.published.matching import import_backbone
from us3l.models.saved_network import add_backbone_prefix
from us3l.params.runs import ImportRun, PretrainRun
from us3l.pipeline.identity import Identity, fingerprint
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.probes.comparison import Outcome
from us3l.pipeline.probes.outcome import describe, flattened
from us3l.pipeline.probes.training import probe_training, thin_out
from us3l.pipeline.provenance import circumstances, record
from us3l.pipeline.requirements import require_network, require_params, require_place
from us3l.pipeline.run_directory import run_directory
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.pipeline.unfinished import PROBE
from us3l.pipeline.watching.job_status import JobStatus, describe_job
from us3l.pipeline.watching.training import watched
from us3l.training.build import build_train_step
from us3l.training.frozen_teacher import frozen_teacher
from us3l.training.micro_batches import Encoder
from us3l.training.step import TrainStep
from us3l.training.trainer import Trainer
from us3l.training.width_sampling import probe_widths
from us3l.utils import checkpoint
from us3l.utils.devices import has_bfloat16
from us3l.utils.distributed import World
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

STATE = "state.safetensors"
WIDTHS_TRIED = 16  # of a range, besides its ends; each is built on the meta device, in milliseconds


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a training: data set, backbone, and the frozen teacher with the seal of its checkpoint."""

    job: RunStage
    store: Store
    backbone: Backbone
    teacher: Encoder | None
    seals: dict[Path, str]

    def train_step(self, settings: PretrainRun, world: World) -> TrainStep:
        return build_train_step(settings, self.backbone, len(self.store.classes), self.job.seed, world, self.teacher)

    def stream(self, settings: PretrainRun, world: World) -> Stream:
        run, shuffled = self.job.run, settings.method.name == "moco"
        normalize = run.data.dataset.views.normalize
        return Stream(self.store.train, settings.batch, run.trained_views, normalize, self.job.seed, world, shuffled)


def open_inputs(job: RunStage, device: torch.device) -> Inputs:
    """Open what a training starts from. Raises UserError where something is missing or not as expected."""
    run = job.run
    store = open_store(run.data.folder)
    teacher, seals = (
        load_teacher(run.weights_from, job.seed, store.channels, device) if run.weights_from else (None, {})
    )
    return Inputs(job, store, _fitted_backbone(run, store), teacher, seals)


def pretrain(job: RunStage, world: World, runs: Path, save_every: float, status: JobStatus | None = None) -> None:
    """Train one run with one seed and write its checkpoint and its record (JSON).

    The state is saved in `runs`/<fingerprint>/ every `save_every` seconds, until the results are written. How far the
    training is goes to a log, and to its status file if there is one.
    Raises UserError for what the user can mend, Interrupted after SIGTERM, SIGINT or SIGHUP.
    """
    run, settings = job.run, job.run.run
    if run.weights_from:
        require_network(RunStage(run.weights_from, "pretrain", job.seed))
    inputs = open_inputs(job, world.device)
    [identity] = job.identities(OpenedSeals(inputs.store.sha256, inputs.seals)).values()

    def write(weights: dict[str, Tensor], seconds: float, **more: Any) -> None:
        facts = record(identity, world.device, seconds, world.size)
        seal = checkpoint.save(run.checkpoint(job.seed), weights, identity)
        write_record(job.record, {**facts, "checkpoint": seal, **more})

    if not isinstance(settings, PretrainRun):
        weights, facts = _given_weights(inputs, settings)
        write(weights, 0.0, core_seconds=0.0, epochs=[], **facts, probe=_weights_probe(weights))
        return
    _require_a_batch(job, settings, inputs.store)
    _warn_of_slow_bfloat16(job, settings, world)
    if status:
        status.say(f"waiting for {runs / fingerprint(identity)}", folder=str(runs / fingerprint(identity)))
    with _held_folder(job, runs / fingerprint(identity), world) as folder:
        if folder:
            if status:
                status.say("probing")
            probed = _kept_probe(inputs, settings, identity, world.device, folder / PROBE) if world.is_main else {}
            train_step, stream = inputs.train_step(settings, world), inputs.stream(settings, world)
            label = f"{run.study} {run.name} seed {job.seed}"
            trainer = Trainer(settings, train_step, stream, folder / STATE, save_every, label)
            with watched(trainer, job, inputs.store, inputs.backbone, folder, status) as looks:
                trainer.run_to_the_end()
            if world.is_main:
                core_seconds = round(world.size * trainer.core_seconds, 3)
                weights = train_step.student.weights.parameters
                write(weights, trainer.seconds, core_seconds=core_seconds, epochs=trainer.history, **looks, **probed)


def probe(job: RunStage, device: torch.device) -> Outcome:
    """Return the outcome of the training's probe, with the present code."""
    inputs, settings = open_inputs(job, device), job.run.run
    if isinstance(settings, PretrainRun):
        return _probe(inputs, settings, device)
    return _weights_probe(_given_weights(inputs, settings)[0])


def _kept_probe(
    inputs: Inputs, settings: PretrainRun, identity: Identity, device: torch.device, kept: Path
) -> dict[str, Any]:
    """Return the probe of a training, which the code that starts it makes and keeps, and requalifications since."""
    if not kept.is_file():
        write_record(kept, {**identity, "probe": _probe(inputs, settings, device), **circumstances(identity, device)})
    found = read_record(kept)
    return {key: found[key] for key in ("probe", "requalified") if key in found}


def _probe(inputs: Inputs, settings: PretrainRun, device: torch.device) -> Outcome:
    store, run, world = inputs.store, inputs.job.run, World(0, 1, device)
    side = _smallest_image(run)
    view = first_view(open_images(store.train, device), run.trained_views[0], run.data.dataset.views.normalize)
    view = thin_out(view, side)
    network = inputs.backbone.build(settings.sampling.widest).to(device).eval()
    return probe_training(
        settings,
        len(store.train.labels),
        side,
        cost(network, view, len(store.classes))["macs"],
        lambda cut: inputs.train_step(cut, world),
        lambda cut: inputs.stream(cut, world),
    )


def _smallest_image(run: RunPlan) -> int | None:
    """Return the smallest side of images that student and frozen teacher take; None if one takes a single size."""
    names = [run.backbone, *([run.weights_from.backbone] if run.weights_from else [])]
    sides = [SMALLEST_IMAGES[name] for name in names if name in SMALLEST_IMAGES]
    return max(sides) if len(sides) == len(names) else None


def _weights_probe(weights: dict[str, Tensor]) -> Outcome:
    return describe({"weights": flattened(weights.values())})


def _given_weights(inputs: Inputs, settings: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a run that does not train, and facts about where they are from."""
    if isinstance(settings, ImportRun):
        path, narrowest = Path(settings.checkpoint), (settings.range or (0.25, 1.0))[0]
        weights, facts = import_backbone(path, settings.sha256, inputs.backbone, settings.widths, narrowest)
        return add_backbone_prefix(weights), {"imported": facts}
    torch.manual_seed(inputs.job.seed)
    return add_backbone_prefix(dict(inputs.backbone.build(1.0).named_parameters())), {}


@contextmanager
def _held_folder(job: RunStage, folder: Path, world: World) -> Iterator[Path | None]:
    """Hold the run directory in the main process; yield None if another training wrote the results in the meantime.

    While it waits, it says so to the others again and again, so that each of them would notice the loss of another.
    """
    before = _mtime_ns(job.record)
    holding = run_directory(folder, describe_job(job), lambda: world.any(True)) if world.is_main else nullcontext()
    with holding:
        while world.any(False):  # the main process waits
            pass
        is_done = world.is_main and _is_done_meanwhile(job.record, before, folder.name)
        yield None if world.any(is_done) else folder


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


def _warn_of_slow_bfloat16(job: RunStage, settings: PretrainRun, world: World) -> None:
    """Say that the CPU only emulates the precision of the run: the arithmetic is the same, and slow."""
    if world.is_main and settings.precision == "bfloat16" and not has_bfloat16(world.device):
        print(
            "us3l: this CPU computes in bfloat16 slowly, having neither avx512_bf16 nor AMX; faster here, as another "
            f"training, is studies.{job.run.study}.runs.{job.run.name}.precision: float32",
            file=sys.stderr,
        )


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
