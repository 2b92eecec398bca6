"""What watches a training: its course in log, bar, status file and metrics, and its monitor."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from us3l.data.store import Store
from us3l.models.backbones.backbone import Backbone
from us3l.params.runs import PretrainRun
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.provenance import hardware
from us3l.pipeline.watching.bar import Bar
from us3l.pipeline.watching.course import Course
from us3l.pipeline.watching.job_status import JobStatus
from us3l.pipeline.watching.metrics import kept_metrics, writers
from us3l.pipeline.watching.monitor import MonitorWatcher
from us3l.training.trainer import Trainer

METRICS, LOOKS = "metrics.csv", "monitor.json"  # in the run directory


@contextmanager
def watched(
    trainer: Trainer, job: RunStage, store: Store, backbone: Backbone, folder: Path, status: JobStatus | None
) -> Iterator[dict[str, Any]]:
    """Watch a training in the main process; yield what its record is to say of that, which is complete at the end.

    The metrics of a training that has come to its end are kept beside its log.
    """
    found: dict[str, Any] = {}
    if not trainer.world.is_main:
        yield found
        return
    run, steps, file = trainer.run, trainer.stream.steps, folder / METRICS
    done = trainer.epoch * steps + trainer.step
    with Bar(trainer.label, run.epochs * steps) as bar, writers(run.metrics, job, file, done) as metrics:
        for line in header(trainer, job, store, file):
            bar.line(line)
        course = Course(trainer, bar, metrics, run.metrics.every)
        trainer.watchers.append(course)
        if status:
            status.follow(course.progress)
            status.say("training", device=device_name(trainer))
        if run.monitor:
            views = job.run.data.dataset.views
            monitor = MonitorWatcher(run.monitor, trainer, backbone, store, views, folder / LOOKS, bar.line)
            trainer.watchers.append(monitor)
            found["monitor"] = monitor.looks
        yield found
    _keep(file, kept_metrics(job))


def header(trainer: Trainer, job: RunStage, store: Store, metrics: Path) -> list[str]:
    """Say what is trained by which recipe and on what, and where to look."""
    run, steps, batch = trainer.run, trainer.stream.steps, trainer.run.batch
    begins = f"; goes on in epoch {trainer.epoch + 1} after step {trainer.step}" if trainer.epoch + trainer.step else ""
    shards = f" in {batch.shards} shards" if batch.shards > 1 else ""
    return [
        f"  recipe    {recipe(run)}",
        f"  images    {len(store.train.labels):,} of {job.run.data.name}; {run.epochs} epochs of {steps} steps of "
        f"{batch.size} images{shards}{begins}",
        f"  hardware  {device_name(trainer)}",
        f"  metrics   {metrics}, every {run.metrics.every} steps",
    ]


def recipe(run: PretrainRun) -> str:
    """Describe a training in a line: method, losses, teacher, network, widths, optimizer."""
    method, optimizer = run.method, run.optimizer
    teacher = f"momentum teacher {method.momentum:g}" if method.momentum is not None else "no momentum teacher"
    if method.teacher:
        teacher = f"teacher {method.teacher}"
    distillation = f", {method.distillation_loss} for narrower widths" if method.distillation_loss else ""
    penalty = f", {run.regularizer.kind} {run.regularizer.strength:g}" if run.regularizer else ""
    return (
        f"{method.name}, {method.base_loss}{distillation}, {teacher}; {run.backbone} at {run.sampling}; "
        f"{optimizer.kind} lr {optimizer.lr:g}{penalty}; {run.precision}"
    )


def device_name(trainer: Trainer) -> str:
    """Describe the devices of a training."""
    found, size = hardware(trainer.world.device), trainer.world.size
    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    each = found["gpu"] if found["device"] == "cuda" else f"{found['cpu']}, {threads}"
    return each if size == 1 else f"{size} x {each}"


def _keep(file: Path, target: Path) -> None:
    with suppress(OSError):  # a log folder that cannot be written takes nothing away from the training
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, target)
