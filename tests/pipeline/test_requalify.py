"""Probes, and requalification by them: a result outlives an edit that does not change it, and no other."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fork_program import SHORT_PROBES
from project import ROOT, Project, params

from us3l.params.runs import PretrainRun
from us3l.pipeline.probes.comparison import ROUNDING, beyond_rounding, differences
from us3l.pipeline.probes.training import cut_batch, points
from us3l.pipeline.stages import calibrate, evaluate, pretrain
from us3l.utils.records import read_record, write_record

STAGES = ("pretrain", "calibrate", "linear")
RECORDS = {
    "pretrain": Path("results/tiny/pretrain/us3l/seed0.json"),
    "calibrate": Path("results/tiny/calibrate/us3l/seed0.json"),
    "linear": Path("results/tiny/linear/us3l/seed0-w025.json"),
}
SAME = ("losses/embeddings.py", "positives", "partners")
SAME_IMAGES = ("data/sources/digits.py", "everything", "numbers")
OTHER = ("training/teacher.py", "step = 1 - momentum", "step = 1.001 - momentum")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all results, and the package that made them in `code`."""
    project = Project(tmp_path_factory.mktemp("requalify") / "project", params())
    del project.environment[SHORT_PROBES]
    shutil.copytree(ROOT / "us3l", project.folder / "code" / "us3l")
    project.must("us3l", "prepare", "digits")
    for stage in STAGES:
        project.must("us3l", stage, "tiny", "us3l", "0")
    project.must("us3l", "table", "tiny", "main")
    return project.folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    """A copy of the project, which runs its own package."""
    copy = Project(shutil.copytree(made, tmp_path / "project"), params())
    copy.environment = {"PYTHONPATH": str(copy.folder / "code")}
    return copy


def edit(project: Project, module: str, old: str, new: str) -> None:
    path = project.folder / "code" / "us3l" / module
    text = path.read_text()
    assert re.search(rf"\b{re.escape(old)}", text)
    path.write_text(re.sub(rf"\b{re.escape(old)}", new, text))


def run(**changes: Any) -> PretrainRun:
    return PretrainRun.model_validate(params(**changes)["studies"]["tiny"]["runs"]["us3l"])


def to_do(project: Project) -> int:
    return int(re.search(r"^(\d+) of \d+ jobs to do$", project.must("us3l", "plan"), re.MULTILINE)[1])


def test_a_renamed_variable_costs_a_probe_and_nothing_is_made_again(project: Project) -> None:
    edit(project, *SAME)
    assert to_do(project) > 0
    assert project.must("us3l", "requalify") == "us3l pretrain tiny us3l 0: equal, bitwise\n"
    assert to_do(project) == 0
    found = read_record(project.folder / "results/tiny/requalified/pretrain/us3l/seed0.json")
    assert (found["promise"], found["largest_difference"]) == ("bitwise", None)
    assert found["was"] == read_record(project.folder / RECORDS["pretrain"])["code"] != found["now"]
    assert found["probe"] == read_record(project.folder / RECORDS["pretrain"])["probe"]
    assert {"hardware", "versions", "finished", "git"} <= found.keys()


def test_an_edit_that_changes_results_is_told_by_its_first_number(project: Project) -> None:
    edit(project, *OTHER)
    pending = to_do(project)
    code, output = project.run("us3l", "requalify", "tiny/us3l")
    assert code == 1
    assert re.fullmatch(
        r"us3l pretrain tiny us3l 0: differs, stays out of date: float64.epoch_\S+ was \S+ and is \S+\n", output
    )
    assert to_do(project) == pending
    assert not (project.folder / "results/tiny/requalified").exists()


def test_a_data_set_is_probed_by_a_sample_of_its_images(project: Project) -> None:
    edit(project, *SAME_IMAGES)
    assert project.must("us3l", "requalify") == "us3l prepare digits: equal, bitwise\n"
    assert to_do(project) == 0
    assert read_record(project.folder / "results/requalified/prepare/digits.json")["promise"] == "bitwise"
    assert "prepare digits: code changed since, requalified by probe" in project.must("us3l", "verify")
    edit(project, "data/sources/digits.py", "255 / 16", "255 / 17")
    code, output = project.run("us3l", "requalify", "tiny/us3l")
    assert code == 1
    assert re.fullmatch(r"us3l prepare digits: differs, stays out of date: train.image_0 was \w+ and is \w+\n", output)


def test_a_data_set_whose_source_is_gone_does_not_keep_others_from_being_probed(project: Project) -> None:
    edit(project, *SAME)
    reader = project.folder / "code" / "us3l" / "data" / "sources" / "digits.py"
    gone = '    raise UserError("digits: gone")\n    digits = load_digits()'
    reader.write_text(reader.read_text().replace("    digits = load_digits()", gone))
    code, output = project.run("us3l", "requalify")
    assert code == 1
    assert output.splitlines() == [
        "us3l prepare digits: cannot be probed, stays out of date: digits: gone",
        "us3l pretrain tiny us3l 0: equal, bitwise",
    ]


def test_snakemake_has_nothing_to_do_after_a_requalification(project: Project) -> None:
    project.with_workflow()
    project.must("us3l", "plan", "--write")
    edit(project, *SAME)
    edit(project, *SAME_IMAGES)
    look = ("snakemake", "--dry-run")
    assert "Pretraining tiny us3l" in project.must(*look)
    project.must("us3l", "requalify")
    assert "Nothing to be done" in project.must(*look)


def test_another_order_of_the_same_operations_is_equal_within_rounding(project: Project) -> None:
    edit(project, "evaluation/features.py", "CPU_IMAGES = 16", "CPU_IMAGES = 1")
    edit(project, "evaluation/features.py", "CPU_PIXELS = 2**15", "CPU_PIXELS = 2**6")
    output = project.must("us3l", "requalify")
    assert re.fullmatch(
        r"us3l linear tiny us3l 0: equal (bitwise|within rounding, at most \S+ apart \(\S+\))\n", output
    )
    assert to_do(project) == 0


def test_verify_and_the_table_tell_of_a_requalification_and_probe_again(project: Project) -> None:
    edit(project, *SAME)
    project.must("us3l", "requalify")
    output = project.must("us3l", "verify", "--level", "2")
    assert "us3l pretrain tiny us3l 0: code changed since, requalified by probe (bitwise)\n" in output
    assert re.search(r"^level 2  holds  within rounding: probes of requalified results \(1\)", output, re.MULTILINE)
    records = read_record(project.folder / "results/tiny/tables/main.json")["records"]
    told = {path: entry["requalified"]["promise"] for path, entry in records.items() if "requalified" in entry}
    assert told == {str(RECORDS["pretrain"]): "bitwise"}


def test_a_requalification_of_other_code_is_caught_by_its_probe(project: Project) -> None:
    edit(project, *SAME)
    project.must("us3l", "requalify")
    path = project.folder / "results/tiny/requalified/pretrain/us3l/seed0.json"
    forged = read_record(path)
    edit(project, *OTHER)
    output = project.must("us3l", "why", str(RECORDS["pretrain"]))
    now = re.search(r"^\+code.us3l.training.teacher: (\w+)$", output, re.MULTILINE)[1]
    forged["now"]["us3l.training.teacher"] = now
    write_record(path, {key: value for key, value in forged.items() if key != "seal"})
    assert to_do(project) == 0
    code, output = project.run("us3l", "verify", "--level", "2")
    assert code == 1
    assert re.search(r"^level 2  1 DIFFER  within rounding: probes of requalified results \(1\)", output, re.MULTILINE)


@pytest.mark.parametrize("change", ["forged", "another result", "another edit"])
def test_a_requalification_counts_for_the_result_and_the_code_that_it_names(project: Project, change: str) -> None:
    edit(project, *SAME)
    project.must("us3l", "requalify")
    path = project.folder / "results/tiny/requalified/pretrain/us3l/seed0.json"
    match change:
        case "forged":
            path.write_text(path.read_text().replace("bitwise", "Bitwise"))
        case "another result":
            record = read_record(project.folder / RECORDS["pretrain"])
            del record["seal"]
            write_record(project.folder / RECORDS["pretrain"], {**record, "seconds": 1.0})
        case "another edit":
            edit(project, *OTHER)
    assert to_do(project) > 0


def test_a_result_without_a_probe_is_to_be_made_again(project: Project) -> None:
    record = read_record(project.folder / RECORDS["pretrain"])
    kept = {key: value for key, value in record.items() if key not in ("probe", "seal")}
    write_record(project.folder / RECORDS["pretrain"], kept)
    edit(project, *SAME)
    code, output = project.run("us3l", "requalify")
    assert (code, output) == (1, "us3l pretrain tiny us3l 0: has no probe, stays out of date: make it again\n")


def test_what_is_up_to_date_or_out_of_date_by_more_than_code_is_not_probed(project: Project) -> None:
    assert project.must("us3l", "requalify") == ""
    edit(project, *SAME)
    project.write(params(epochs=5))
    assert project.must("us3l", "requalify") == ""


@pytest.mark.parametrize("address", ["nosuch", "tiny/nosuch"])
def test_an_unknown_study_or_run_is_named(project: Project, address: str) -> None:
    code, output = project.run("us3l", "requalify", address)
    assert code == 2 and "nosuch" in output and output.count("\n") == 1


def test_an_unfinished_training_goes_on_after_an_edit(project: Project) -> None:
    expected = read_record(project.folder / RECORDS["pretrain"])
    for path in (RECORDS["pretrain"], Path("results/tiny/checkpoints/us3l/seed0.safetensors")):
        (project.folder / path).unlink()
    process = project.start("us3l", "pretrain", "tiny", "us3l", "0", "--save-every", "0")
    assert any("epoch 2" in line for line in process.stdout)
    process.send_signal(15)
    process.communicate()
    [before] = (project.folder / "runs").glob("*/")
    edit(project, *SAME)
    assert project.must("us3l", "requalify") == "us3l pretrain tiny us3l 0, unfinished: equal, bitwise\n"
    [after] = (project.folder / "runs").glob("*/")
    assert after.name != before.name
    assert "epoch 1/" not in project.must("us3l", "pretrain", "tiny", "us3l", "0")
    made = read_record(project.folder / RECORDS["pretrain"])
    assert made["checkpoint"] != expected["checkpoint"], "the seal holds the code"
    assert [each["loss"] for each in made["epochs"]] == [each["loss"] for each in expected["epochs"]]
    [finding] = made["requalified"]
    assert (finding["was"], finding["now"]) == (expected["code"], made["code"])


def test_a_probe_does_not_disturb_its_stage(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Callable[..., tuple[int, str, str]]
) -> None:
    copy = shutil.copytree(made, tmp_path / "project")
    before = {stage: read_record(copy / path) for stage, path in RECORDS.items()}
    shutil.rmtree(copy / "results")
    monkeypatch.chdir(copy)
    monkeypatch.setattr(pretrain, "_kept_probe", lambda *inputs: {})
    for stage in (calibrate, evaluate):
        monkeypatch.setattr(stage, "_probe", lambda *inputs: {})
    for stage in STAGES:
        assert us3l(stage, "tiny", "us3l", "0")[0] == 0
    after = {stage: read_record(copy / path) for stage, path in RECORDS.items()}
    for stage, key in (
        ("pretrain", "checkpoint"),
        ("calibrate", "networks"),
        ("linear", "network"),
        ("linear", "top1"),
    ):
        assert after[stage][key] == before[stage][key]
    assert before["linear"]["probe"] and not after["linear"]["probe"]


NUMBERS = {"loss": [1.0, 2.0], "state": {"sha256": "ab", "norm": 3.0, "projection": 1e-9}, "n": 4}


@pytest.mark.parametrize(
    ("change", "relative"),
    [
        ({}, None),
        ({"loss": [1.0, 2.0 * (1 + 1e-6)]}, 1e-6),
        ({"state": {"sha256": "cd", "norm": 3.0, "projection": 4e-9}}, 1e-9),
        ({"state": {"sha256": "cd", "norm": 3.0, "projection": 1.0}}, 1 / 3),
        ({"loss": [1.0]}, float("inf")),
        ({"loss": [1.0, float("nan")]}, float("inf")),
        ({"n": 5}, float("inf")),
        ({"state": None}, float("inf")),
    ],
)
def test_outcomes_are_compared_bit_by_bit_and_by_relative_difference(
    change: dict[str, Any], relative: float | None
) -> None:
    found = differences(NUMBERS, NUMBERS | change)
    largest = max((each.relative for each in found), default=None)
    assert largest == (relative if relative is None else pytest.approx(relative, rel=1e-3))
    assert json.loads(json.dumps(NUMBERS)) == NUMBERS


def training(losses: list[float], in_float64: list[float]) -> dict[str, Any]:
    """The outcome of a training's probe, with a loss for each step."""

    def steps(losses: list[float]) -> dict[str, Any]:
        return {
            "epoch_0": {f"step_{number}": {"loss_and_feature_std": [[loss, 0.5]]} for number, loss in enumerate(losses)}
        }

    return {**steps(losses), "float64": steps(in_float64)}


@pytest.mark.parametrize(
    ("losses", "in_float64", "beyond"),
    [
        ([1.0, 2.0, 3.0], [1.00001, 2.0, 3.0], []),
        ([1.0, 2.5, 5.0], [1.00001 + 1e-10, 2.0000001, 3.00001], []),
        ([1.0, 2.0, 3.0], [1.0000101, 2.0, 3.0], ["float64.epoch_0.step_0.loss_and_feature_std.0.0"]),
        ([1.0, 2.0, 3.0], [1.00001, 2.0001, 3.0], ["float64.epoch_0.step_1.loss_and_feature_std.0.0"]),
        ([1.0, 2.0, 3.0], [1.00001, 2.0, 4.0], ["float64.epoch_0.step_2.loss_and_feature_std.0.0"]),
        ([1.001, 2.0, 3.0], [1.00001, 2.0, 3.0], ["error against float64"]),
        ([1.00003, 2.0, 3.0], [1.00001, 2.0, 3.0], []),
    ],
)
def test_a_training_is_compared_in_float64_and_by_the_error_of_float32(
    losses: list[float], in_float64: list[float], beyond: list[str]
) -> None:
    recorded = training([1.0, 2.0, 3.0], [1.00001, 2.0, 3.0])
    assert [each.key for each in beyond_rounding(recorded, training(losses, in_float64))] == beyond


def test_a_first_loss_of_zero_is_compared() -> None:
    assert beyond_rounding(training([0.0], [0.0]), training([1e-8], [0.0])) == []


def test_less_precision_is_not_exchanged_for_more() -> None:
    exact, less = [1.0], [1.001]
    assert beyond_rounding(training(less, exact), training(exact, exact))


def test_nothing_differs_where_both_are_not_a_number() -> None:
    assert differences({"loss": float("nan")}, {"loss": float("nan")}) == []
    assert 0 < ROUNDING < 1e-3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 1}, [0]),
        ({"epochs": 2}, [0, 1]),
        ({"epochs": 4}, [0, 1, 2, 3]),
        ({"epochs": 18}, [0, 1, 4, 8, 9, 12, 17]),
        (
            {"epochs": 400, "regularizer": {"kind": "group", "strength": 1.0, "warmup_epochs": 40}},
            [0, 1, 40, 100, 200, 300, 399],
        ),
        ({"epochs": 100, "optimizer": {"lr": 1.0, "warmup_epochs": 5}}, [0, 1, 5, 25, 50, 75, 99]),
        ({"epochs": 8, "optimizer": {"lr": 1.0, "schedule": "multistep", "milestones": [5, 7]}}, [0, 1, 2, 4, 5, 6, 7]),
    ],
)
def test_the_schedule_is_probed_at_its_ends_at_each_quarter_and_where_it_turns(
    changes: dict[str, Any], expected: list[int]
) -> None:
    assert points(run(**changes)) == expected


@pytest.mark.parametrize(
    ("batch", "epochs", "images", "macs", "expected"),
    [
        ({"size": 512, "shards": 4}, 400, 50_000, 1, (512, 4)),
        ({"size": 512, "shards": 4}, 400, 50_000, 10**9, (8, 2)),
        ({"size": 256, "shards": 1}, 12, 10_000, 1, (32, 1)),
        ({"size": 6, "shards": 3}, 1, 6, 10**9, (6, 3)),
        ({"size": 12, "shards": 1}, 1, 12, 10**9, (6, 1)),
    ],
)
def test_the_batch_is_cut_in_halves_and_its_shards_down_to_two(
    batch: dict[str, int], epochs: int, images: int, macs: int, expected: tuple[int, int]
) -> None:
    cut = cut_batch(run(batch=batch, epochs=epochs), images, macs)
    assert (cut.size, cut.shards) == expected
