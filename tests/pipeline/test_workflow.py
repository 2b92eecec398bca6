"""Snakemake and DVC over a small project: what they make, what an edit makes them make again, and that they agree."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from project import ROOT, RUN, Project, keep_studies, params

from us3l.params.params import Params
from us3l.params.reading import load, read
from us3l.pipeline.dvc import locked_entries
from us3l.pipeline.dvc_file import DVC_FILE, LOCK_FILE, missing_stages, superfluous_stages, write_dvc_file
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.utils.errors import UserError

SNAKEMAKE = ("snakemake", "--cores", "2", "--quiet")
PLAN = Plan(load(ROOT / "params.yaml"))


@pytest.fixture(scope="module")
def content() -> dict:
    """Two runs that differ in their seed of nothing but the name: `us3l` and `other`."""
    made = params(epochs=1)
    study = made["studies"]["tiny"]
    study["runs"]["other"] = deepcopy(RUN) | {"epochs": 1}
    study["tables"]["main"]["rows"].append({"label": "Other", "runs": "other"})
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, content: dict) -> Project:
    made = Project(tmp_path_factory.mktemp("built"), content).with_workflow()
    made.must(*SNAKEMAKE)
    return made


def pending(project: Project, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule a dry run lists."""
    output = project.must("snakemake", "--cores", "2", "--dry-run", "--quiet", "rules", *arguments)
    return {
        rule.partition("_")[0]: int(count)
        for rule, count in re.findall(r"^([\w-]+) +(\d+)$", output, re.MULTILINE)
        if rule != "total"
    }


def test_a_build_makes_the_table_and_leaves_nothing_to_do(built: Project) -> None:
    assert "US3L" in (built.folder / "results/tiny/tables/main.md").read_text()
    assert "Nothing to be done" in built.must("snakemake", "--cores", "2", "--dry-run")


def test_a_file_that_the_plan_does_not_have_is_refused_with_its_command(built: Project) -> None:
    code, output = built.run("snakemake", "--dry-run", "results/tiny/checkpoints/us3l/seed7.safetensors")
    assert code == 1
    assert "params.yaml has no `us3l pretrain tiny us3l 7`: `us3l plan` lists its runs and seeds" in output


def test_one_evaluation_a_width_with_what_it_came_from(built: Project) -> None:
    evaluation = json.loads((built.folder / "results/tiny/linear/us3l/seed0-w025.json").read_text())
    assert evaluation["width"] == 0.25 and evaluation["n"] == 1708
    low, high = evaluation["interval"]
    assert low < evaluation["top1"] < high and evaluation["top5"] > evaluation["top1"]
    assert {
        "parameters",
        "macs",
        "seconds",
        "hardware",
        "versions",
        "fingerprint",
        "network",
        "checkpoint",
        "data",
    } <= set(evaluation)


def test_an_edit_of_one_runs_temperature_re_runs_that_run_alone(built: Project, content: dict) -> None:
    edited = deepcopy(content)
    edited["studies"]["tiny"]["runs"]["other"]["method"]["temperature"] = 0.4
    built.write(edited)
    try:
        assert pending(built) == {"plan": 1, "pretrain": 1, "calibrate": 1, "linear": 1, "table": 1, "all": 1}
    finally:
        built.write(content)
    assert pending(built) == {}


def test_an_edit_of_the_protocol_trains_no_network_again(built: Project, content: dict) -> None:
    edited = deepcopy(content)
    edited["protocols"]["quick"]["epochs"] = 3
    built.write(edited)
    try:
        assert pending(built) == {"plan": 1, "linear": 2, "table": 1, "all": 1}
    finally:
        built.write(content)


def test_resources_change_nothing(built: Project, content: dict) -> None:
    edited = deepcopy(content)
    edited["studies"]["tiny"]["runs"]["other"]["resources"] = {"gpus": 0, "threads": 2}
    built.write(edited)
    try:
        assert pending(built) == {"plan": 1, "all": 1}
    finally:
        built.write(content)


def test_a_wildcard_takes_only_what_params_yaml_names(built: Project) -> None:
    code, output = built.run("snakemake", "--cores", "2", "--", "results/tiny/checkpoints/nobody/seed0.safetensors")
    assert code != 0 and "MissingRuleException" in output


def test_a_mistake_in_params_yaml_stops_snakemake_with_one_sentence(tmp_path: Path, content: dict) -> None:
    project = Project(tmp_path, params(epohcs=1)).with_workflow()
    code, output = project.run(*SNAKEMAKE)
    assert code == 2
    assert output.splitlines()[-1] == (
        "us3l: params.yaml: studies.tiny.runs.us3l.epohcs: unknown key; did you mean 'epochs'?"
    )


def test_the_snakefile_that_catalogues_look_for_plans_and_makes_the_same(built: Project) -> None:
    as_module = ("--snakefile", "workflow/Snakefile")
    (built.folder / "results/tiny/tables/main.md").unlink()
    assert pending(built, *as_module) == pending(built) == {"table": 1, "all": 1}
    built.must(*SNAKEMAKE, *as_module)
    assert pending(built) == {}
    handlers = [re.findall(r"^on\w+(?=:)", (ROOT / name).read_text(), re.M) for name in ("Snakefile", as_module[1])]
    assert handlers[0] == handlers[1] != []


def test_a_gpu_count_changes_nothing(built: Project) -> None:
    output = built.must("snakemake", "--cores", "2", "--dry-run", "--resources", "gpu=8")
    assert "Nothing to be done" in output


def test_snakemake_makes_the_files_of_the_plan_by_the_rules_of_its_jobs() -> None:
    command = [sys.executable, "-m", "snakemake", "--summary", "--cores", "1", "--nolock"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    _, *lines = (line.split("\t") for line in printed.splitlines())
    rules = {str(path): job.rule for job in jobs(PLAN, PLAN.build) for path in job.outputs}
    assert {line[0]: line[2] for line in lines} == rules | {"results/plan.json": "plan"}


def test_dvc_has_the_jobs_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By DVC's own reading of the project's dvc.yaml, in a folder that needs no git."""
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True)
    shutil.copy(ROOT / DVC_FILE, tmp_path)
    require_same_stages(tmp_path, PLAN)


@pytest.mark.parametrize("study", load(ROOT / "params.yaml").studies)
def test_dvc_has_the_jobs_of_any_study_once_us3l_dvc_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True)
    plan = Plan(load(ROOT / "params.yaml").model_copy(update={"build": [study]}))
    assert write_dvc_file(plan) and not write_dvc_file(plan)
    assert missing_stages(plan) == superfluous_stages(plan) == []
    require_same_stages(tmp_path, plan)


def require_same_stages(folder: Path, plan: Plan) -> None:
    """The same stages, over the same files, each with its entry of the plan."""
    stages = {stage.addressing: stage for stage in Repo(str(folder)).index.stages}
    members: dict[str, list[Job]] = {}
    for job in jobs(plan, plan.build):
        members.setdefault(job.dvc_stage, []).append(job)
    assert stages.keys() == {"plan", *members}
    for name, mine in members.items():
        stage = stages[name]
        assert stage.cmd == f"us3l make {name}"
        outputs = [out.def_path for out in stage.outs]
        inputs = [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        entries = [dep.params for dep in stage.deps if isinstance(dep, ParamsDependency)]
        assert all(any(path.is_relative_to(out) for out in outputs) for job in mine for path in job.outputs)
        assert all(any(path.is_relative_to(dep) for dep in inputs) for job in mine for path in job.inputs)
        assert entries == [[name]]
        assert all(out.persist for out in stage.outs)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A small plan, in a folder without a dvc.yaml."""
    monkeypatch.chdir(tmp_path)
    return Plan(Params.model_validate(params()))


def test_stages_and_keys_of_the_user_stay_in_dvc_yaml(alone: Plan) -> None:
    theirs = {"stages": {"mine": {"cmd": "echo mine"}, "gone-linear": {"foreach": ["a"], "do": {"cmd": "us3l make x"}}}}
    DVC_FILE.write_text(yaml.safe_dump(theirs | {"plots": [{"curve.csv": {"x": "step"}}]}))
    assert superfluous_stages(alone) == ["gone-linear@a"]
    write_dvc_file(alone)
    content = yaml.safe_load(DVC_FILE.read_text())
    assert content["plots"] == [{"curve.csv": {"x": "step"}}]
    assert content["stages"]["mine"] == {"cmd": "echo mine"}
    assert "gone-linear" not in content["stages"] and superfluous_stages(alone) == missing_stages(alone) == []


@pytest.mark.parametrize(
    "change", [lambda stage: stage["do"].update(deps=[]), lambda stage: stage.update(foreach=["other"]), dict.clear]
)
def test_a_stage_that_was_changed_by_hand_is_missing(alone: Plan, change: Callable[[Any], None]) -> None:
    write_dvc_file(alone)
    content = yaml.safe_load(DVC_FILE.read_text())
    change(content["stages"]["tiny-calibrate"])
    DVC_FILE.write_text(yaml.safe_dump(content))
    assert missing_stages(alone) == ["tiny-calibrate@us3l"]


@pytest.mark.parametrize("text", ["stages: [", "- plan", "stages: {a: {cmd: x}}\nstages"])
def test_a_dvc_yaml_that_is_none_is_named(alone: Plan, text: str) -> None:
    DVC_FILE.write_text(text)
    with pytest.raises(UserError, match=r"^dvc.yaml: not [^\n]*; mend or delete it$"):
        write_dvc_file(alone)


@pytest.mark.parametrize(
    "content",
    [
        b"stages: [",
        b"- plan",
        b"\xff\x00\x80",
        b"stages: [plan]",
        b"stages: {a: 1}",
        b"stages: {a: {params: [1]}}",
        None,
    ],
)
def test_a_dvc_lock_that_is_none_is_named(alone: Plan, content: bytes | None) -> None:
    LOCK_FILE.mkdir() if content is None else LOCK_FILE.write_bytes(content)
    with pytest.raises(UserError, match=r"^dvc.lock: [^\n]*; mend or delete it$"):
        locked_entries()


@pytest.mark.parametrize(
    ("content", "entries"),
    [("", {}), ("{}", {}), ("stages: {a: {}, b: {params: {results/plan.json: [b]}}}", {"a": None, "b": None})],
)
def test_a_dvc_lock_that_does_not_tell_of_the_plan_has_no_entries(
    alone: Plan, content: str, entries: dict[str, Any]
) -> None:
    LOCK_FILE.write_text(content)
    assert locked_entries() == entries


def test_groups_of_the_user_have_the_names_that_dvc_gives_them(alone: Plan) -> None:
    group = {"foreach": [{"a": 1}, "b", 3], "do": {"cmd": "us3l make ${item}"}}
    DVC_FILE.write_text(yaml.safe_dump({"stages": {"mine": group, "[/b]": {"cmd": "us3l make x"}}}))
    assert superfluous_stages(alone) == ["[/b]", "mine@0", "mine@b", "mine@3"]


def test_after_the_clock_was_set_back_snakemake_keeps_what_is_made(built: Project) -> None:
    """It deletes the files of a job whose inputs are of the future."""
    table, tomorrow = built.folder / "results/tiny/tables/main.md", time.time() + 86_400
    inputs = [*built.folder.glob("results/tiny/*/us3l/*.json"), built.folder / "params.yaml"]
    for path in inputs:
        os.utime(path, (tomorrow, tomorrow))
    table.unlink()
    built.must(*SNAKEMAKE)
    assert table.is_file() and all(path.stat().st_mtime <= time.time() for path in inputs)


def test_dvc_repro_makes_the_table_and_agrees_with_snakemake(tmp_path: Path) -> None:
    """The project's own params.yaml, cut down to one short run and one that is not trained."""
    content = read(ROOT / "params.yaml")
    keep_studies(content, "digits")
    digits = content["studies"]["digits"]
    digits["runs"] = {name: digits["runs"][name] for name in ("us3l", "pixels")}
    digits["runs"]["us3l"]["epochs"] = 1
    digits["tables"]["main"]["rows"] = [{"label": name, "runs": name} for name in digits["runs"]]
    digits["seeds"], digits["figures"] = [0], ["training"]
    project = Project(tmp_path, content)
    project.must("dvc", "init", "--no-scm", "--quiet")
    project.with_workflow(".dvcignore", "us3l")
    project.must("us3l", "dvc")
    output = project.must("dvc", "repro")
    assert "Running stage 'digits-table@main'" in output
    assert "us3l" in (tmp_path / "results/digits/tables/main.md").read_text()
    assert pending(project) == {}
    assert "up to date" in project.must("dvc", "status")
    assert "Running stage" not in project.must("dvc", "repro")
