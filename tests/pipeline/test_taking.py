"""Runs that take another's weights, through all stages: another data set, neighbours, pruning, a teacher."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from project import RUN, Project, params
from safetensors.numpy import load_file
from short_probes import shorten_probes

from us3l.cli import main
from us3l.utils.records import read_record, read_weights

Command = Callable[..., tuple[int, str, str]]

STAGES = (
    *("prepare digits", "prepare more", "prepare colour"),
    *("pretrain tiny us3l 0", "calibrate tiny us3l 0", "linear tiny us3l 0"),
    *(
        "calibrate later cut 0",
        "linear later cut 0",
        "knn later near 0",
        "linear later moved 0",
        "knn later cut-near 0",
    ),
    *("pretrain later student 0", "calibrate later student 0", "linear later student 0"),
    *("table tiny main", "table later near", "table later main"),
)


def content(**teacher: Any) -> dict[str, Any]:
    """The study `tiny`, and `later`, all of whose runs take weights of its one run."""
    batch = {"size": 128, "shards": 2}
    made = params(epochs=1, batch=batch) | {"build": ["later"]}
    made["datasets"]["digits"]["source"]["test_fraction"] = 0.25  # enough images to learn from
    made["protocols"] |= {"near": {"kind": "knn", "neighbours": 5}}
    made["datasets"]["more"] = {
        "source": {"kind": "digits", "test_fraction": 0.5},
        "views": made["datasets"]["digits"]["views"],
    }
    views = {"normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}, "pretrain": [{}, {}]}
    folder = {"kind": "folder", "train": "pictures", "test_fraction": 0.5, "image_size": 8}
    made["datasets"]["colour"] = {"source": folder, "views": views}
    reused = {"kind": "reuse", "weights_from": "tiny/us3l", "dataset": "digits"}
    method = RUN["method"] | {"momentum": None, "teacher": "tiny/us3l"}
    student = RUN | {"epochs": 1, "batch": batch, "method": method}
    runs = {
        "near": reused | {"protocol": "near"},
        "moved": reused | {"dataset": "more"},
        "cut": {"kind": "prune", "weights_from": "tiny/us3l", "criterion": "filters", "resources": {"gpus": 0}},
        "cut-near": reused | {"weights_from": "cut", "protocol": "near"},
        "student": student,
    }
    tables = {
        "main": {"title": "Linear", "rows": [{"label": name, "runs": name} for name in ("moved", "cut", "student")]},
        "near": {"title": "Near", "rows": [{"label": name, "runs": name} for name in ("near", "cut-near")]},
    }
    made["studies"]["later"] = made["studies"]["tiny"] | {"runs": runs, "tables": tables}
    return json.loads(json.dumps(made))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project all of whose stages have run; tests copy it."""
    folder = Project(tmp_path_factory.mktemp("finished"), content()).folder
    for name in "ab":
        (folder / "pictures" / name).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(np.full((8, 8, 3), 60 * index, np.uint8)).save(folder / "pictures" / name / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten_probes(patch)
        for stage in STAGES:
            patch.setattr(sys, "argv", ["us3l", *stage.split()])
            with pytest.raises(SystemExit) as end:
                main()
            assert not end.value.code, stage
    return folder


@pytest.fixture
def project(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A copy of the finished project, which is the current directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield Project(tmp_path, content())


def seal(path: str) -> str:
    return read_weights(Path(path))[1]["seal"]


def evaluation(run: str, kind: str, width: str = "w025") -> dict[str, Any]:
    return read_record(Path(f"results/later/{kind}/{run}/seed0-{width}.json"))


CHECKPOINT = "results/tiny/checkpoints/us3l/seed0.safetensors"
NETWORK = "results/tiny/networks/us3l/seed0-w025.safetensors"


def test_a_reused_network_is_evaluated_as_it_is_and_the_record_says_which_it_was(project: Project) -> None:
    near, moved = evaluation("near", "knn"), evaluation("moved", "linear")
    for record in (near, moved):
        assert (record["checkpoint"], record["network"]) == (seal(CHECKPOINT), seal(NETWORK))
    assert (near["n"], moved["n"]) == (450, 899), "the test images of its own data set"
    assert near["data"] != moved["data"]
    assert near["top1"] > 50 and moved["top1"] > 50
    assert not Path("results/later/networks/near").exists()


def test_a_pruned_network_is_cut_from_the_checkpoint_of_the_other_run(project: Project) -> None:
    path = "results/later/networks/cut/seed0-w025.safetensors"
    record, reused = evaluation("cut", "linear"), evaluation("cut-near", "knn")
    for each in (record, reused):
        assert (each["checkpoint"], each["network"]) == (seal(CHECKPOINT), seal(path))
    weights, whole = load_file(path), load_file(CHECKPOINT)
    norms = np.abs(whole["backbone.conv1.weight"]).sum((1, 2, 3))
    left = np.abs(weights["conv1.weight"]).sum((1, 2, 3)) > 0
    assert left.sum() == len(norms) / 4 and norms[left].min() > norms[~left].max()
    assert record["parameters"] < evaluation("cut", "linear", "w100")["parameters"] / 8


def test_a_training_with_a_teacher_names_the_seal_of_its_checkpoint(project: Project) -> None:
    record = read_record(Path("results/later/pretrain/student/seed0.json"))
    assert record["teacher"] == seal(CHECKPOINT)
    assert record["params"]["run"]["method"]["teacher"] == "small-resnet"
    assert "teacher" not in read_record(Path("results/tiny/pretrain/us3l/seed0.json"))


def test_all_is_up_to_date_and_a_cell_is_verified_to_the_last_level(project: Project, us3l: Command) -> None:
    assert "0 of 14 jobs to do" in us3l("plan")[1]
    assert us3l("verify", "--level", "1")[0] == 0
    output = project.must("us3l", "verify", "near:cut-near", "--level", "3")
    assert [line.split()[:3] for line in output.splitlines() if " holds " in line] == [
        ["level", str(level), "holds"] for level in range(4)
    ]


def test_a_cell_of_a_run_that_trains_nothing_is_verified_by_training_the_other(project: Project) -> None:
    forged = Path("results/tiny/pretrain/us3l/seed0.json")
    forged.write_text(forged.read_text().replace('"lr": 0', '"lr": 1'))
    code, output = project.run("us3l", "verify", "near:near:0.25x", "--level", "1")
    assert code == 1 and f"{forged}: damaged" in output


def test_another_teacher_is_what_has_changed(project: Project, us3l: Command) -> None:
    made = content()
    made["studies"]["tiny"]["runs"]["other"] = made["studies"]["tiny"]["runs"]["us3l"]
    made["studies"]["later"]["runs"]["student"]["method"]["teacher"] = "tiny/other"
    project.write(made)
    printed = us3l("why", "results/later/linear/student/seed0-w025.json")[1]
    assert f"-teacher: {seal(CHECKPOINT)}\n+teacher: not made yet\n" in printed
    assert "us3l pretrain tiny other 0: not made yet" in printed
    made["studies"]["later"]["runs"]["student"]["method"] |= {"momentum": 0.9, "teacher": None}
    project.write(made)
    printed = us3l("why", "results/later/linear/student/seed0-w025.json")[1]
    assert "-params.run.method.teacher: small-resnet\n+params.run.method.teacher: None\n" in printed


def test_an_edit_of_the_other_run_makes_again_all_that_rests_on_it(project: Project, us3l: Command) -> None:
    made = content()
    made["studies"]["tiny"]["runs"]["us3l"]["epochs"] = 2
    project.write(made)
    *_, line = us3l("why", "results/later/tables/near.md")[1].splitlines()
    again = line.removeprefix("would run again: ").split(", ")
    assert sorted(again) == sorted(stage for stage in STAGES if not stage.startswith("prepare"))


def test_the_plan_says_whose_weights_a_run_takes(project: Project, us3l: Command) -> None:
    lines = [line.split("  ") for line in us3l("plan", "--study", "later")[1].splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines if len(line) > 2]
    assert rows[0] == [
        *("study", "run", "weights", "dataset", "backbone", "widths", "seeds"),
        *("pretrain", "calibrate", "linear", "knn"),
    ]
    assert {row[1]: (row[2], *row[7:]) for row in rows[1:]} == {
        "us3l": ("trained", "1/1", "1/1", "-", "-"),
        "near": ("reused tiny/us3l", "-", "-", "-", "1/1"),
        "moved": ("reused tiny/us3l", "-", "-", "1/1", "-"),
        "cut": ("pruned tiny/us3l", "-", "1/1", "1/1", "-"),
        "cut-near": ("reused cut", "-", "-", "-", "1/1"),
        "student": ("trained, teacher tiny/us3l", "1/1", "1/1", "1/1", "-"),
    }


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pretrain later near 0", "the run later near has the stages knn, and no pretrain"),
        ("calibrate later near 0", "the run later near has the stages knn, and no calibrate"),
        ("linear later near 0", "the run later near has the stages knn, and no linear"),
        ("pretrain later cut 0", "the run later cut has the stages calibrate, linear, and no pretrain"),
        ("knn later student 0", "the run later student has the stages pretrain, calibrate, linear, and no knn"),
    ],
)
def test_a_stage_that_a_run_does_not_have_is_refused(project: Project, us3l: Command, command: str, said: str) -> None:
    code, _, errors = us3l(*command.split())
    assert (code, errors) == (2, f"us3l: params.yaml: {said}\n")


def edited(path: str, value: Any) -> dict[str, Any]:
    made = content()
    *parents, last = path.split(".")
    place = made
    for part in parents:
        place = place[part]
    place[last] = value
    return made


@pytest.mark.parametrize(
    ("key", "value", "command", "said"),
    [
        (
            "studies.later.runs.moved.dataset",
            "colour",
            "linear later moved 0",
            f"{NETWORK.replace('w025', 'w100')}: sees images of 1 channels, and those of colour have 3",
        ),
        (
            "protocols.quick.calibration",
            {"passes": 1},
            "knn later near 0",
            f"{NETWORK.replace('w025', 'w100')}: made with calibration.passes = 3, but params.yaml says 1: calibrate",
        ),
        (
            "protocols.quick.calibration",
            {"passes": 1},
            "linear later moved 0",
            f"{NETWORK.replace('w025', 'w100')}: made with calibration.passes = 3, but params.yaml says 1: calibrate",
        ),
        (
            "studies.tiny.runs.us3l.epochs",
            2,
            "calibrate later cut 0",
            f"{CHECKPOINT}: made with run.epochs = 1, but params.yaml says 2: pretrain again",
        ),
        (
            "studies.tiny.runs.us3l.epochs",
            2,
            "pretrain later student 0",
            f"{CHECKPOINT}: made with run.epochs = 1, but params.yaml says 2: pretrain again",
        ),
    ],
)
def test_weights_of_other_params_or_for_other_images_are_refused(
    project: Project, us3l: Command, key: str, value: Any, command: str, said: str
) -> None:
    project.write(edited(key, value))
    code, _, errors = us3l(*command.split())
    assert code == 2
    assert errors.splitlines()[-1].startswith(f"us3l: {said}")
