"""`us3l show` and `us3l list`: where a number comes from, and which names there are."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from project import RUN, Project, params

from us3l.params.params import Params
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.watching.job_status import job_status
from us3l.utils.records import read_record, write_record

Command = Callable[..., tuple[int, str, str]]
GIT = {"commit": "0123456789abcdef", "dirty": False}
HERE = {"git": GIT, "hardware": {"cpu": "A processor"}, "seconds": 1800.0, "gpu_hours": 0.25}


def content() -> dict[str, Any]:
    """Two rows that differ in a rate and a regularizer, and a run that no table shows."""
    made = deepcopy(params())
    study = made["studies"]["tiny"]
    study["seeds"] = [0, 1]
    study["runs"]["slow"] = RUN | {"optimizer": {"lr": 0.01}, "regularizer": None}
    study["runs"]["extra"] = RUN | {"epochs": 9}
    study["tables"]["main"]["rows"].append({"label": "Slow", "runs": "slow"})
    return made


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    Project(tmp_path, content())
    return Plan(Params.model_validate(content()))


def evaluate(plan: Plan, *accuracies: float) -> None:
    run = plan.run("tiny", "us3l")
    for seed, top1 in enumerate(accuracies):
        facts = {"interval": [top1 - 4, top1 + 3], "n": 1708, "macs": 123456, "parameters": 7890}
        place = {"stage": "linear", "seed": seed, "width": 1.0, "top1": top1}
        write_record(run.evaluation_record(seed, 1.0), {**HERE, **facts, **place})
        write_record(run.training_record(seed), {**HERE, "stage": "pretrain"})


def test_a_cell_says_what_it_rests_on_and_how_to_derive_it_again(plan: Plan, us3l: Command) -> None:
    evaluate(plan, 91.0, 93.0)
    code, printed, errors = us3l("show", "tiny/main:US3L:1x")
    assert (code, errors) == (0, "")
    assert printed.splitlines() == [
        "tiny/main: US3L, 1x (tiny us3l)",
        "value       92 ± 13, mean and half of the 95% interval (Student's t) over seeds, n = 2, linear accuracy, "
        "protocol quick",
        "seeds       0: 91 [87.0, 94.0] of 1,708 test images",
        "            1: 93 [89.0, 96.0] of 1,708 test images",
        "network     7,890 parameters, 123,456 MACs for an image",
        "files       results/tiny/linear/us3l/seed0-w100.json",
        "            results/tiny/pretrain/us3l/seed0.json",
        "            results/tiny/linear/us3l/seed1-w100.json",
        "            results/tiny/pretrain/us3l/seed1.json",
        "commit      0123456789, A processor",
        "hours       2.000 of computing, 1.000 of GPUs, for all that the cell rests on",
        "differs     Slow: optimizer.lr 0.01 (here 0.05), regularizer none (here group)",
        "again       us3l verify tiny/main:1:1x --level 3",
    ]


def test_a_cell_of_one_seed_has_the_interval_over_test_images(plan: Plan, us3l: Command) -> None:
    evaluate(plan, 91.0)
    value = us3l("show", "main:1:1.0")[1].splitlines()[1]
    assert value.startswith("value       91 [87.0, 94.0], Wilson's 95% interval over the test images, one seed")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("tiny/mian:1:1x", "no table of params.yaml is called 'tiny/mian'; did you mean 'tiny/main'?"),
        ("main:Fast:1x", "tiny/main: no row begins with 'Fast'; it has: ['US3L', 'Slow']"),
        ("main:1:0.5x", "tiny/main: no column is called '0.5x'; it has: 1x, 0.25x"),
        ("main:1", "main:1: names 2 cells; type one: tiny/main:1:1x or tiny/main:1:0.25x"),
        (
            "main:2:1x",
            "main:2:1x: no result yet; take it with `dvc pull`, or make it: us3l linear tiny slow 0 or "
            "us3l linear tiny slow 1",
        ),
    ],
)
def test_a_cell_that_is_not_there_is_refused_with_what_there_is(
    plan: Plan, us3l: Command, cell: str, sentence: str
) -> None:
    assert us3l("show", cell) == (2, "", f"us3l: {sentence}\n")


def test_a_record_of_an_older_version_is_named_in_one_sentence(plan: Plan, us3l: Command) -> None:
    evaluate(plan, 91.0)
    path = plan.run("tiny", "us3l").evaluation_record(0, 1.0)
    write_record(path, {key: value for key, value in read_record(path).items() if key not in ("macs", "seal")})
    code, printed, errors = us3l("show", "main:1:1x")
    assert (code, printed) == (2, "") and errors.startswith(f"us3l: {path}: has no entry macs: another version of us3l")


# --- plan and list --------------------------------------------------------------------------------------------------


def test_the_plan_marks_what_runs_and_names_what_stands_in_no_table(plan: Plan, us3l: Command) -> None:
    with job_status(RunStage(plan.run("tiny", "slow"), "pretrain", 1), "training"):
        lines = us3l("plan")[1].splitlines()
    [slow] = [line for line in lines if " slow " in line]
    assert "0/2, 1 running" in slow and sum("running" in line for line in lines) == 1
    assert "in no table: tiny/extra" in lines
    assert "running" not in us3l("plan")[1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("backbones", ["cifar-resnet18", "vit-base", "MODULE:FUNCTION  your own, a function of the width"]),
        ("losses", ["rkd-distance", "feature_distillation.loss: attention-spatial"]),
        ("methods", ["name: moco-v3  heads"]),
        ("studies", ["tiny  3 runs, 2 seeds, 2 widths, tables main (built)"]),
        ("protocols", ["quick  linear"]),
    ],
)
def test_names_are_listed(plan: Plan, us3l: Command, kind: str, expected: list[str]) -> None:
    code, printed, _ = us3l("list", kind)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert code == 0
    for each in expected:
        assert any(line.startswith(" ".join(each.split())) for line in lines), each
