"""The stages of small runs (tests/support/tiny.py), passed in this process: one step of a training is left."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
import torch
from short_probes import shorten_probes
from tiny import EPOCHS, draw_images, thin_networks, write_digits

from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.plan.dataset import DatasetPlan, PrepareJob
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.stages import pretrain
from us3l.pipeline.stages.calibrate import calibrate
from us3l.pipeline.stages.evaluate import evaluate
from us3l.pipeline.stages.prepare import prepare
from us3l.utils.distributed import World


class LastEpoch(pretrain.Trainer):
    """A training of which only the last epoch is left, when all widths are sampled; each of its weights must move."""

    def run_to_the_end(self) -> None:
        self.epoch = EPOCHS - 1
        flat = self.train_step.student.weights
        before = {name: weights.clone() for name, weights in flat.parameters.items()}
        super().run_to_the_end()
        still = {name for name, weights in flat.parameters.items() if torch.equal(weights, before[name])}
        trained = {name for name in flat.trainable if name.startswith("backbone.") and "weight" in name}
        assert trained and not still & trained


@contextmanager
def small_stages(folder: Path) -> Iterator[None]:
    """Work in a folder with images; networks, trainings and probes are small within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(pretrain, "Trainer", LastEpoch)
        shorten_probes(patch)
        thin_networks(patch)
        draw_images()
        yield


def make(run: RunPlan, device: torch.device) -> None:
    """The evaluation of a run, and all that it comes from, where it is not there yet."""
    if all(path.is_file() for path in run.evaluation_records(0)):
        return
    *trainings, calibration = run.ancestors
    for origin, stage in (*reversed(trainings), calibration, (run, run.protocol.kind)):
        prepared(origin.data)
        job = RunStage(origin, stage, 0)
        if not job.done:
            pass_stage(job, device)


def prepared(data: DatasetPlan) -> None:
    if not (data.folder / "meta.json").is_file():
        write_digits(data) if data.dataset.source.kind == "digits" else prepare(PrepareJob(data), Path("downloads"))


def pass_stage(job: RunStage, device: torch.device) -> None:
    match job.stage:
        case "pretrain":
            pretrain.pretrain(job, World(0, 1, device), Path("runs"), math.inf)
        case "calibrate":
            calibrate(job, device)
        case _:
            evaluate(job, device, import_module(EVALUATIONS[job.stage]).evaluate_networks)
