"""Every run of params.yaml made small (tests/tiny.py): one training step, calibration and evaluation, by the stages."""

import math
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tiny import EPOCHS, TEST, draw_images, thin_networks, tiny, write_digits

from us3l.params.reading import load
from us3l.params.runs import PretrainRun
from us3l.params.sampling import FixedWidths
from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.plan.dataset import DatasetPlan, PrepareJob
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.probes import evaluation, training
from us3l.pipeline.stages import pretrain
from us3l.pipeline.stages.calibrate import calibrate
from us3l.pipeline.stages.evaluate import evaluate
from us3l.pipeline.stages.prepare import prepare
from us3l.utils.distributed import World
from us3l.utils.records import read_record

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
PLAN = Plan(load(ROOT / "params.yaml"))
RUNS = {"/".join(address): run for address, run in PLAN.runs.items()}


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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunPlan]]:
    """All runs made small. Their results are in one folder, the current one: those that are alike are made once."""
    folder = tmp_path_factory.mktemp("every-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(pretrain, "Trainer", LastEpoch)
        shorten_probes(patch)
        thin_networks(patch)
        draw_images()
        yield {name: tiny(run) for name, run in RUNS.items()}
    shutil.rmtree(folder)


def shorten_probes(patch: pytest.MonkeyPatch) -> None:
    """Probe one step of a training, and one epoch of an evaluation."""
    patch.setattr(training, "points", lambda run: [0])
    patch.setattr(training, "STEPS", 1)
    patch.setattr(evaluation, "EPOCHS", 1)


@pytest.fixture(scope="module")
def taken(small: dict[str, RunPlan]) -> set[str]:
    """The studies whose weights others take."""
    return {source.study for run in small.values() for source in sources(run)}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_passes_all_its_stages(small: dict[str, RunPlan], taken: set[str], name: str) -> None:
    run = small[name]
    make(run)
    if isinstance(run.run, PretrainRun):
        check_training(run)
    check_evaluations(run)
    if run.study not in taken:
        for folder in ("checkpoints", "networks"):
            shutil.rmtree(Path("results", run.study, folder), ignore_errors=True)


def sources(run: RunPlan) -> list[RunPlan]:
    return [run.weights_from, *sources(run.weights_from)] if run.weights_from else []


def make(run: RunPlan) -> None:
    """The evaluation of a run, and all that it comes from, where it is not there yet."""
    if all(path.is_file() for path in run.evaluation_records(0)):
        return
    *trainings, calibration = run.ancestors
    for origin, stage in (*reversed(trainings), calibration, (run, run.protocol.kind)):
        prepared(origin.data)
        job = RunStage(origin, stage, 0)
        if not job.done:
            pass_stage(job)


def prepared(data: DatasetPlan) -> None:
    if not (data.folder / "meta.json").is_file():
        write_digits(data) if data.dataset.source.kind == "digits" else prepare(PrepareJob(data), Path("downloads"))


def pass_stage(job: RunStage) -> None:
    match job.stage:
        case "pretrain":
            pretrain.pretrain(job, World(0, 1, CPU), Path("runs"), math.inf)
        case "calibrate":
            calibrate(job, CPU)
        case _:
            evaluate(job, CPU, import_module(EVALUATIONS[job.stage]).predict_logits)


def check_training(run: RunPlan) -> None:
    """One epoch of finite losses and spreads, of as many widths as a step samples."""
    (epoch,) = read_record(run.training_record(0))["epochs"]
    sampling = run.run.sampling
    widths = len(sampling.widths) if isinstance(sampling, FixedWidths) else sampling.widths_per_step
    for values in (epoch["loss"], epoch["feature_std"]):
        assert len(values) == widths and all(map(math.isfinite, values))
    assert min(epoch["feature_std"]) > 0


def check_evaluations(run: RunPlan) -> None:
    records = [read_record(run.evaluation_record(0, width)) for width in sorted(run.widths)]
    for record in records:
        assert 0 <= record["top1"] <= 100 and record["n"] == TEST
    for cost in ("parameters", "macs"):
        costs = [record[cost] for record in records]
        if run.backbone == "pixels":
            continue
        assert min(costs) > 0 and costs == sorted(set(costs)), "a wider network costs more"
