"""Exports of params.yaml: both tools make and track them, and nothing but what concerns them makes them again."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
import shipped
import yaml
from project import Project

import us3l
from us3l.deployment import formats
from us3l.deployment.formats import FORMATS
from us3l.params.export import Export
from us3l.params.reading import load
from us3l.pipeline.dvc_file import expected_groups
from us3l.pipeline.integrity import seal_of_file
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

Command = Callable[..., tuple[int, str, str]]
EXPORTS = {
    "edge": {"run": "us3l", "widths": [0.25, 0.6], "formats": []},
    "served": {"run": "us3l", "widths": [0.25], "formats": ["onnx"], "head": True},
}
EDGE, SERVED = (Path(f"results/tiny/exports/{name}/seed0") for name in EXPORTS)
WHOLE = {"README.md", "config.json", "model.py", "model.safetensors"}


def content(**exports: Any) -> dict[str, Any]:
    made = shipped.content()
    study = made["studies"].pop("votes")
    made["studies"]["votes"] = study | {"exports": {}}
    made["studies"]["tiny"] |= {"runs": {"us3l": shipped.UNTRAINED}, "exports": exports or EXPORTS}
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project made by Snakemake, under DVC."""
    project = Project(tmp_path_factory.mktemp("built"), content()).with_workflow(".dvcignore")
    project.must("dvc", "init", "--no-scm", "--quiet")
    project.must("us3l", "dvc")
    project.must("snakemake", "--cores", "2", "--quiet", "host")
    return project.folder


@pytest.fixture
def copy(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what Snakemake made, which is the current directory."""
    for name in ("params.yaml", "data", "results"):
        source = built / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(made: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(made))


def to_do(us3l: Command) -> list[str]:
    """The jobs beside those of runs that `us3l plan` lists as to do; nothing of a run may be."""
    code, output, _ = us3l("plan")
    assert code == 0 and "0/1" not in output
    return [line.removesuffix(": to do") for line in output.splitlines() if line.endswith(": to do")]


def test_snakemake_makes_folders_that_load_and_a_record_of_what_they_came_from(copy: Path) -> None:
    assert {path.name for path in EDGE.iterdir()} == {"w025", "w060"}
    assert {path.name for path in (EDGE / "w060").iterdir()} == WHOLE
    assert {path.name for path in (SERVED / "w025").iterdir()} == WHOLE | {"model.onnx"}
    assert us3l.load(EDGE / "w060").config.width == 0.6 and us3l.load(SERVED / "w025").config.classes
    edge, served = (read_record(Path(f"results/tiny/export/{name}/seed0.json")) for name in EXPORTS)
    evaluation = read_record(Path("results/tiny/linear/us3l/seed0-w025.json"))
    assert edge["networks"] == served["networks"] == {"w025": evaluation["network"]}
    assert edge["evaluations"] == {"w025": evaluation["seal"]}
    assert edge["checkpoint"] == evaluation["checkpoint"] and "checkpoint" not in served, "for width 0.6 alone"
    assert "us3l.evaluation.calibration" in edge["code"].keys() - served["code"].keys()
    assert served["files"] == {f"w025/{path.name}": seal_of_file(path) for path in sorted((SERVED / "w025").iterdir())}
    told = json.loads((SERVED / "w025/config.json").read_text(encoding="utf-8"))
    assert told["accuracy"]["top1"] == evaluation["top1"]


def test_both_tools_and_verify_find_nothing_to_do(built: Path) -> None:
    project = Project(built, content())
    assert "Nothing to be done" in project.must("snakemake", "--cores", "2", "--dry-run")
    assert project.must("dvc", "status") == "plan:\n\talways changed\n", "us3l is installed elsewhere"
    locked = yaml.safe_load((built / "dvc.lock").read_text())["stages"]["tiny-export@served"]
    assert [out["path"] for out in locked["outs"]] == ["results/tiny/export/served", "results/tiny/exports/served"]
    code, output = project.run("us3l", "verify", "--level", "1")
    assert code == 0, output


def test_dvc_has_a_stage_for_each_export(copy: Path) -> None:
    groups = expected_groups(Plan(load(Path("params.yaml"))))
    assert groups["tiny-export"]["do"]["outs"] == [
        {"results/tiny/exports/${key}": {"persist": True}},
        {"results/tiny/export/${key}": {"cache": False, "persist": True}},
    ]
    write(content(edge=EXPORTS["edge"]))
    group = expected_groups(Plan(load(Path("params.yaml"))))["tiny-export"]
    assert group["foreach"] == ["edge"] and group["do"]["cmd"] == "us3l make tiny-export@${item}"
    assert group["do"]["deps"] == [
        *("data/digits", "results/tiny/checkpoints/us3l", "results/tiny/networks/us3l", "results/tiny/linear/us3l"),
    ]


def test_an_edit_of_formats_makes_that_export_again_and_nothing_else(copy: Path, us3l: Command) -> None:
    assert to_do(us3l) == []
    write(content(**EXPORTS | {"served": EXPORTS["served"] | {"formats": []}}))
    assert to_do(us3l) == ["export tiny served 0"]
    _, output, _ = us3l("why", str(SERVED / "w025/model.py"))
    assert "-params.formats: ['onnx']" in output and "would run again: export tiny served 0\n" in output
    assert us3l("export", "tiny", "served", "0")[0] == 0
    assert to_do(us3l) == [] and not (SERVED / "w025/model.onnx").exists(), "what it no longer has is gone"
    code, output, _ = us3l("export", "tiny", "served", "0")
    assert (code, output) == (0, "us3l export tiny served 0: up to date; --force makes it again\n")


def test_snakemake_makes_an_export_again_that_has_fewer_files(built: Path, tmp_path: Path) -> None:
    """It removes the files that the rule names, and leaves the others."""
    fewer = content(**EXPORTS | {"served": EXPORTS["served"] | {"formats": []}})
    project = Project(shutil.copytree(built, tmp_path, dirs_exist_ok=True, symlinks=True), fewer)
    project.must("us3l", "dvc")
    project.must("snakemake", "--cores", "2", "--quiet")
    assert {path.name for path in (tmp_path / SERVED / "w025").iterdir()} == WHOLE


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.onnx"])
def test_a_file_that_was_changed_is_found(copy: Path, us3l: Command, name: str) -> None:
    path = SERVED / "w025" / name
    path.write_bytes(path.read_bytes() + b" ")
    assert to_do(us3l) == ["export tiny served 0"]
    code, output, _ = us3l("verify", "--level", "1")
    assert code == 1 and f"{path}: damaged: it was changed after it was written" in output


def test_a_file_that_no_job_makes_is_found_beside_an_export(copy: Path, us3l: Command) -> None:
    (EDGE / "w025/thesis.tex").touch()
    code, output, _ = us3l("verify", "--level", "1")
    assert code == 1 and f"{EDGE}/w025/thesis.tex: no job of params.yaml makes this file" in output


def test_a_record_of_other_files_is_found(copy: Path, us3l: Command) -> None:
    path = Path("results/tiny/export/edge/seed0.json")
    record = {key: value for key, value in read_record(path).items() if key != "seal"}
    write_record(path, record | {"files": record["files"] | {"w025/more": "0" * 64}})
    code, output, _ = us3l("verify", "--level", "1")
    assert code == 1 and f"{path}: files is " in output


def test_an_export_that_does_not_hold_fails_and_leaves_nothing(
    copy: Path, us3l: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_true = formats.write_onnx

    def write_other(network: Any, example: Any, path: Path) -> None:
        other = deepcopy(network)
        other.classifier.bias.data += 1
        write_true(other, example, path)

    monkeypatch.setitem(FORMATS, "onnx", write_other)
    code, output, _ = us3l("export", "tiny", "served", "0", "--force")
    assert code == 1 and "model.onnx removed: outputs differ by" in output
    assert not SERVED.exists() and to_do(us3l) == ["export tiny served 0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny", "edge", "0", "--width", "0.5"), "the export tiny edge: params.yaml says its widths, head, formats"),
        (("tiny", "edge", "0", "--formats", ""), "the export tiny edge: params.yaml says its widths, head, formats"),
        (("tiny", "edge", "7"), "params.yaml: the export tiny edge has the seeds [0], and no 7"),
    ],
)
def test_what_the_command_cannot_do_is_said(copy: Path, us3l: Command, arguments: tuple[str, ...], said: str) -> None:
    code, _, errors = us3l("export", *arguments)
    assert code == 2 and said in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("study", "export", "said"),
    [
        ("tiny", {"run": "us3"}, "exports.x.run: no run is called 'us3'; did you mean 'us3l'?"),
        ("tiny", {"run": "cut"}, "exports.x.run: cut is pruned: its networks keep their shape"),
        ("tiny", {"run": "again"}, "exports.x.run: again is pruned: its networks keep their shape"),
        (
            "tiny",
            {"run": "narrow", "widths": [1.0]},
            "exports.x.widths.0: narrow was trained at the widths 0.25 to 0.25, not at 1; choose one of these",
        ),
        ("tiny", {"run": "us3l", "widths": [0.1]}, "exports.x.widths.0: must be at least 0.25, not 0.1"),
        ("tiny", {"run": "us3l", "widths": [0.5, 0.5]}, "exports.x.widths: [0.5, 0.5] names a value twice"),
        ("tiny", {"run": "us3l", "seeds": [3]}, "exports.x.seeds.0: must be one of the study's seeds, [0], not 3"),
        ("tiny", {"run": "us3l", "formats": ["tf"]}, "exports.x.formats.0: must be 'onnx' or 'pt2', not 'tf'"),
        (
            "tiny",
            {"run": "us3l", "widths": [0.6], "head": True},
            "exports.x.head: no classifier is trained at width 0.6, which the study does not evaluate",
        ),
        (
            "votes",
            {"run": "near", "head": True},
            "exports.x.head: the protocol near trains no classifier; leave head out",
        ),
        ("tiny", {"run": "us3l", "heads": True}, "exports.x.heads: unknown key; did you mean 'head'?"),
    ],
)
def test_what_cannot_be_exported_is_said_when_params_yaml_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str, export: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = content()
    runs = made["studies"]["tiny"]["runs"]
    runs["cut"] = {"kind": "prune", "weights_from": "us3l", "criterion": "filters"}
    runs["again"] = {"kind": "reuse", "weights_from": "cut", "dataset": "digits"}
    runs["narrow"] = shipped.RUN | {"sampling": 0.25}
    made["studies"][study]["exports"] = {"x": export}
    write(made)
    with pytest.raises(UserError) as error:
        load(Path("params.yaml"))
    assert str(error.value).startswith(f"params.yaml: studies.{study}.{said}") and "\n" not in str(error.value)


def test_an_export_cannot_have_the_name_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(content(us3l={"run": "us3l"}))
    with pytest.raises(UserError, match=r"exports\.us3l: a run has the name 'us3l' already; give the export another"):
        load(Path("params.yaml"))


def test_the_formats_of_params_are_those_of_the_command() -> None:
    named = get_args(get_args(Export.model_fields["formats"].annotation)[0])
    assert {"safetensors", *named} == {*FORMATS}


def test_by_default_all_seeds_and_all_evaluated_widths_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = content(plain={"run": "us3l"})
    made["studies"]["tiny"]["seeds"] = made["studies"]["votes"]["seeds"] = [0, 1]
    write(made)
    plan = Plan(load(Path("params.yaml")))
    planned = [job for job in jobs(plan, ["tiny"]) if job.stage == "export"]
    assert [job.command for job in planned] == ["export tiny plain 0", "export tiny plain 1"]
    folder = Path("results/tiny/exports/plain/seed1/w100")
    assert {path for path in planned[1].outputs if path.parent == folder} == {
        folder / name for name in (*WHOLE, "model.onnx", "model.pt2")
    }
