"""Jobs: what there is to do for the studies to build, in which order, and who makes what."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from project import RUN, params

from us3l.params.params import Params
from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage

RUN_STAGES = ("pretrain", "calibrate", "linear")
RUNS = ("us3l", "other", "narrow")


def content() -> dict[str, Any]:
    """Two studies alike, each of three runs on two data sets with two seeds, and of two tables; a third data set."""
    made = params()
    digits = made["datasets"]["digits"]
    made["datasets"] = {name: deepcopy(digits) for name in ("digits", "more", "unused")}
    study = made["studies"]["tiny"]
    study["seeds"] = [0, 7]
    study["runs"]["other"] = RUN | {"dataset": "more"}
    study["runs"]["narrow"] = RUN | {"sampling": {"range": [0.25, 0.5]}}
    rows = [{"label": "Apart", "runs": {1.0: "other", 0.25: "narrow"}}]
    study["tables"]["second"] = {"title": "Second", "rows": rows}
    made["studies"]["later"] = deepcopy(study)
    return made


PLAN = Plan(Params.model_validate(content()))
BOTH = ["tiny", "later"]


def named(command: str) -> Job:
    return next(job for job in jobs(PLAN, BOTH) if job.command == command)


def test_every_file_is_made_by_one_job() -> None:
    paths = [path for job in jobs(PLAN, BOTH) for path in job.outputs]
    assert len(set(paths)) == len(paths)


def test_what_a_job_reads_an_earlier_one_has_made() -> None:
    made: set[Path] = set()
    for job in jobs(PLAN, BOTH):
        assert made.issuperset(job.inputs), job.command
        made.update(job.outputs)


def test_a_job_is_a_data_set_or_a_seed_of_a_run_or_a_table() -> None:
    everything = jobs(PLAN, ["tiny"])
    of_runs = [f"{stage} tiny {run} {seed}" for stage in RUN_STAGES for run in RUNS for seed in (0, 7)]
    commands = ["prepare digits", "prepare more", *of_runs, "table tiny main", "table tiny second"]
    assert sorted(job.command for job in everything) == sorted(commands)


def taking() -> Plan:
    """Studies of runs that take weights from `tiny`, and one from the other; `tiny` comes last in params.yaml."""
    made = content()
    made["protocols"]["near"] = {"kind": "knn"}
    tiny, reused = made["studies"]["tiny"], {"kind": "reuse", "dataset": "more", "protocol": "near"}
    learning = RUN | {"method": RUN["method"] | {"momentum": None, "teacher": "tiny/narrow"}}
    of_study = {
        "reused": {"near": reused | {"weights_from": "tiny/us3l"}, "cut-near": reused | {"weights_from": "pruned/cut"}},
        "pruned": {"cut": {"kind": "prune", "weights_from": "tiny/us3l", "criterion": "batch-norm"}},
        "taught": {"pupil": learning | {"method": learning["method"] | {"teacher": "student"}}, "student": learning},
    }
    studies = {name: tiny | {"runs": runs, "tables": {}} for name, runs in of_study.items()}
    return Plan(Params.model_validate(made | {"studies": studies | {"tiny": tiny}}))


@pytest.mark.parametrize("studies", [["reused"], ["pruned"], ["taught"], ["reused", "pruned", "taught", "tiny"]])
def test_what_a_run_takes_from_another_is_made_before_it_whatever_the_order(studies: list[str]) -> None:
    made: set[Path] = set()
    for job in jobs(taking(), studies):
        assert made.issuperset(job.inputs), job.command
        assert made.isdisjoint(job.outputs), job.command
        made.update(job.outputs)


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (
            "reused",
            "prepare digits, prepare more, pretrain tiny us3l, calibrate tiny us3l, calibrate pruned cut, "
            "knn reused near, knn reused cut-near",
        ),
        ("pruned", "prepare digits, pretrain tiny us3l, calibrate pruned cut, linear pruned cut"),
        (
            "taught",
            "prepare digits, pretrain tiny narrow, pretrain taught student, pretrain taught pupil, "
            "calibrate taught student, calibrate taught pupil, linear taught student, linear taught pupil",
        ),
    ],
)
def test_a_study_has_the_jobs_of_other_runs_that_it_rests_on_and_no_other(study: str, expected: str) -> None:
    found = {" ".join([job.stage, *job.names]): job for job in jobs(taking(), [study])}
    assert sorted(found) == sorted(expected.split(", "))
    seeds = [job.seed for job in jobs(taking(), [study]) if (job.stage, *job.names) == ("pretrain", "tiny", "us3l")]
    assert seeds in ([], [0, 7])


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_each_kind_of_evaluation_has_its_rule_its_command_and_its_stage_of_dvc_yaml(kind: str) -> None:
    made = content()
    training = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}} if kind != "knn" else {}
    made["protocols"]["quick"] = {"kind": kind} | training
    job = next(job for job in jobs(Plan(Params.model_validate(made)), ["tiny"]) if job.stage == kind)
    assert (job.command, job.rule) == (f"{kind} tiny us3l 0", f"{kind}_tiny_w025_w100")
    assert job.dvc_stage == f"tiny-{kind.replace('-', '_')}@us3l"


def test_no_two_jobs_of_other_runs_share_a_stage_of_dvc_yaml_however_studies_are_called() -> None:
    made = content()
    training = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}}
    made["protocols"]["features"] = {"kind": "features-linear"} | training
    made["studies"] = {"a": made["studies"]["tiny"] | {"protocol": "features"}, "a-features": made["studies"]["later"]}
    everything = jobs(Plan(Params.model_validate(made | {"build": ["a", "a-features"]})), ["a", "a-features"])
    stages: dict[str, set[tuple[str, ...]]] = {}
    for job in everything:
        stages.setdefault(job.dvc_stage, set()).add((job.stage, *job.names))
    assert all(len(what) == 1 for what in stages.values())


@pytest.mark.parametrize("studies", [["tiny"], ["later"], BOTH, []])
def test_jobs_are_of_the_studies_asked_for_and_of_their_data_sets(studies: list[str]) -> None:
    everything = jobs(PLAN, studies)
    assert {job.names[0] for job in everything if job.stage != "prepare"} == set(studies)
    datasets = {job.names[0] for job in everything if job.stage == "prepare"}
    assert datasets == ({"digits", "more"} if studies else set())


def test_all_that_the_studies_to_build_make_is_the_work_of_their_jobs() -> None:
    made = {path for job in jobs(PLAN, PLAN.build) for path in job.outputs}
    assert {path.parts[:2] for path in made} == {("results", "tiny"), ("data", "digits"), ("data", "more")}
    tables = {path.name for path in made if path.parent == Path("results/tiny/tables")}
    assert tables == {
        f"{name}.{suffix}"
        for name in ("main", "second")
        for suffix in ("md", "csv", "tex", "macros.tex", "html", "metrics.yaml", "json")
    }


@pytest.mark.parametrize(
    ("command", "dvc_stage", "rule"),
    [
        ("prepare more", "prepare@more", "prepare"),
        ("pretrain tiny us3l 7", "tiny-pretrain@us3l", "pretrain"),
        ("calibrate tiny us3l 0", "tiny-calibrate@us3l", "calibrate_tiny_w025_w100"),
        ("linear later narrow 0", "later-linear@narrow", "linear_later_w025"),
        ("table tiny second", "tiny-table@second", "table"),
    ],
)
def test_a_job_knows_its_stage_of_dvc_yaml_and_its_rule(command: str, dvc_stage: str, rule: str) -> None:
    assert (named(command).dvc_stage, named(command).rule) == (dvc_stage, rule)


def test_the_seeds_of_a_run_are_one_stage_of_dvc_yaml_and_nothing_else_is() -> None:
    stages: dict[str, set[tuple[Any, ...]]] = {}
    for job in jobs(PLAN, BOTH):
        stages.setdefault(job.dvc_stage, set()).add((job.stage, *job.names))
    assert all(len(what) == 1 for what in stages.values())
    assert len(stages) == 2 + 2 * (3 * 3 + 2)


@pytest.mark.parametrize(
    ("command", "record"),
    [
        ("prepare more", "data/more/prepare.json"),
        ("pretrain tiny us3l 7", "results/tiny/pretrain/us3l/seed7.json"),
        ("calibrate tiny us3l 7", "results/tiny/calibrate/us3l/seed7.json"),
        ("linear tiny us3l 7", "results/tiny/linear/us3l/seed7-w100.json"),
        ("linear tiny narrow 7", "results/tiny/linear/narrow/seed7-w025.json"),
        ("table tiny second", "results/tiny/tables/second.json"),
    ],
)
def test_the_record_of_a_job_is_one_of_its_files(command: str, record: str) -> None:
    job = named(command)
    assert job.record == Path(record)
    assert job.record in job.outputs


def test_a_job_has_the_params_of_its_stage() -> None:
    assert named("prepare more").stage_params == {"kind": "digits", "test_fraction": 0.95}
    for stage in RUN_STAGES:
        assert named(f"{stage} tiny us3l 7").stage_params == RunStage(PLAN.run("tiny", "us3l"), stage, 7).stage_params
    assert named("table tiny second").stage_params["table"]["title"] == "Second"


def test_a_job_is_done_once_all_of_its_files_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = named("calibrate tiny us3l 0")
    assert len(job.outputs) == 3
    for path in job.outputs:
        assert not job.done
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert job.done
    assert not named("calibrate tiny us3l 7").done
