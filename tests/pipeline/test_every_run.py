"""Every run of params.yaml made small (tests/tiny.py): one training step, calibration and evaluation, by the stages."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from stages import make, small_stages
from tiny import TEST, tiny

from us3l.params.reading import load
from us3l.params.runs import PretrainRun
from us3l.params.sampling import FixedWidths
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.stages import evaluate, pretrain
from us3l.utils.records import read_record

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
PLAN = Plan(load(ROOT / "params.yaml"))
RUNS = {"/".join(address): run for address, run in PLAN.runs.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunPlan]]:
    """All runs made small. Their results are in one folder, the current one: those that are alike are made once."""
    folder = tmp_path_factory.mktemp("every-run")
    with small_stages(folder):
        yield {name: tiny(run) for name, run in RUNS.items()}
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def taken(small: dict[str, RunPlan]) -> set[str]:
    """The studies whose weights others take."""
    return {source.study for run in small.values() for source in sources(run)}


@pytest.fixture(scope="module")
def probed(small: dict[str, RunPlan]) -> set[str]:
    """The first run of each method on each backbone: the probes of the others would take as long as their stages."""
    return {*{(method(run), run.backbone): name for name, run in reversed(small.items())}.values()}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_passes_all_its_stages(
    small: dict[str, RunPlan], taken: set[str], probed: set[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = small[name]
    if name not in probed:
        for stage in (pretrain, evaluate):
            monkeypatch.setattr(stage, "_probe", lambda *_: {})
    make(run, CPU)
    if isinstance(run.run, PretrainRun):
        check_training(run)
    check_evaluations(run)
    if run.study not in taken:
        for folder in ("checkpoints", "networks"):
            shutil.rmtree(Path("results", run.study, folder), ignore_errors=True)


def method(run: RunPlan) -> str:
    """The name of the method that trained it, or what it is instead of a training."""
    trained = run.producer("pretrain").run
    return trained.method.name if isinstance(trained, PretrainRun) else trained.kind


def sources(run: RunPlan) -> list[RunPlan]:
    return [run.weights_from, *sources(run.weights_from)] if run.weights_from else []


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
