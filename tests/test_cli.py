"""The command line as a user meets it: a mistake ends in one sentence and exit code 2, and nothing is half-written."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import files_limited_to
from project import Project, params
from safetensors.numpy import load_file, save_file

from us3l.cli import main

Command = Callable[..., tuple[int, str, str]]
Refusal = Callable[..., str]

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
NETWORK = Path("results/tiny/networks/us3l/seed0-w025.safetensors")
EVALUATION = Path("results/tiny/linear/us3l/seed0-w025.json")
TABLE = Path("results/tiny/tables/main.md")
STAGES = {stage: (stage, "tiny", "us3l", "0") for stage in ("pretrain", "calibrate", "linear")}
STAGES |= {"prepare": ("prepare", "digits"), "table": ("table", "tiny", "main")}
MADE = {"pretrain": CHECKPOINT, "calibrate": NETWORK, "linear": EVALUATION, "table": TABLE}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project all of whose stages have run; tests copy it."""
    folder = Project(tmp_path_factory.mktemp("finished"), params(epochs=1)).folder
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("prepare", "pretrain", "calibrate", "linear", "table"):
            patch.setattr(sys, "argv", ["us3l", *STAGES[stage]])
            with pytest.raises(SystemExit) as end:
                main()
            assert not end.value.code
    return folder


@pytest.fixture
def project(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the finished project, which is the current directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, params(epochs=1))


@pytest.fixture
def us3l(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: a new one would import PyTorch each time."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["us3l", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def refusal(us3l: Command) -> Refusal:
    """The sentence with which a command is refused, after any lines on progress; no file is made, changed or lost."""

    def run(*arguments: str) -> str:
        before = files()
        code, _, errors = us3l(*arguments)
        assert code == 2
        *progress, sentence = errors.splitlines()
        assert all(line.startswith("epoch ") for line in progress)
        assert sentence.startswith("us3l: ")
        assert files() == before
        return sentence.removeprefix("us3l: ")

    return run


def files() -> dict[Path, bytes]:
    """Everything but runs/, where a training that fails may leave what it continues from."""
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.parts[0] != "runs"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("prepare nosuch", "params.yaml has no dataset 'nosuch'; it has: digits"),
        ("pretrain nosuch us3l 0", "params.yaml has no run 'nosuch us3l'; it has: tiny us3l"),
        ("calibrate tiny nosuch 0", "params.yaml has no run 'tiny nosuch'; it has: tiny us3l"),
        ("linear tiny us3l 7", "params.yaml: the study tiny has the seeds [0], and no 7"),
        ("table tiny nosuch", "params.yaml has no table 'tiny nosuch'; it has: tiny main"),
        ("table nosuch main", "params.yaml has no table 'nosuch main'; it has: tiny main"),
        ("plan --study nosuch", "params.yaml has no study 'nosuch'; it has: tiny"),
        ("targets linear tiny nosuch", "params.yaml has no run 'tiny nosuch'; it has: tiny us3l"),
        (
            "plan --params nosuch.yaml",
            "nosuch.yaml: no such file; run the command where params.yaml lies, or give --params",
        ),
    ],
)
def test_what_params_yaml_does_not_name_is_refused(project: Project, refusal: Refusal, command: str, said: str) -> None:
    assert refusal(*command.split()) == said


@pytest.mark.parametrize(
    ("stage", "absent", "said"),
    [
        ("pretrain", Path("data/digits"), ": there is no prepared data set; run `us3l prepare digits`"),
        ("calibrate", CHECKPOINT, ": no such file"),
        ("linear", NETWORK, ": no such file"),
    ],
)
def test_a_stage_before_its_turn_is_refused(
    project: Project, refusal: Refusal, stage: str, absent: Path, said: str
) -> None:
    shutil.rmtree(absent) if absent.is_dir() else absent.unlink()
    assert refusal(*STAGES[stage]).startswith(f"{absent}{said}")


def test_a_checkpoint_of_another_architecture_is_refused(project: Project, refusal: Refusal) -> None:
    other = load_file(CHECKPOINT) | {"backbone.conv1.weight": np.zeros((8, 1, 3, 3), np.float32)}
    save_file(other, CHECKPOINT, {"us3l": json.dumps(record(CHECKPOINT))})
    said = refusal(*STAGES["calibrate"])
    assert said.startswith(f"{CHECKPOINT}: conv1.weight is (8, 1, 3, 3) here and (32, 1, 3, 3) in a small-resnet")


def test_a_checkpoint_of_another_recipe_is_refused(project: Project, refusal: Refusal) -> None:
    project.write(params(epochs=1, optimizer={"lr": 0.04}))
    said = refusal(*STAGES["calibrate"])
    assert said.startswith(f"{CHECKPOINT}: made with run.optimizer.lr = 0.05, but params.yaml says 0.04")


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
@pytest.mark.parametrize(("stage", "path"), [("calibrate", CHECKPOINT), ("linear", NETWORK)])
def test_a_truncated_file_is_refused(project: Project, refusal: Refusal, stage: str, path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(*STAGES[stage]).startswith(f"{path}: not a whole safetensors file")


def test_a_file_that_us3l_did_not_write_is_refused(project: Project, refusal: Refusal) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, CHECKPOINT)
    assert refusal(*STAGES["calibrate"]).startswith(f"{CHECKPOINT}: holds no us3l record")


NO_EVALUATION = f"{EVALUATION}: not an evaluation at width 0.25; delete it and run `us3l linear` again"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", "\xff"])
def test_a_damaged_evaluation_stops_the_table(project: Project, refusal: Refusal, content: str) -> None:
    EVALUATION.write_text(content, encoding="latin-1")
    assert refusal(*STAGES["table"]) == NO_EVALUATION


@pytest.mark.parametrize(
    ("key", "value"), [("width", 0.5), ("top1", None), ("top1", "50"), ("top1", 101.0), ("top1", float("nan"))]
)
def test_an_evaluation_of_another_width_or_without_an_accuracy_stops_the_table(
    project: Project, refusal: Refusal, key: str, value: Any
) -> None:
    EVALUATION.write_text(json.dumps(json.loads(EVALUATION.read_text()) | {key: value}))
    assert refusal(*STAGES["table"]) == NO_EVALUATION


@pytest.mark.parametrize("key", ["width", "top1", "fingerprint", "network"])
def test_an_evaluation_that_does_not_say_what_it_came_from_stops_the_table(
    project: Project, refusal: Refusal, key: str
) -> None:
    evaluation = json.loads(EVALUATION.read_text())
    del evaluation[key]
    EVALUATION.write_text(json.dumps(evaluation))
    assert refusal(*STAGES["table"]) == NO_EVALUATION


@pytest.mark.parametrize(
    ("stage", "limit"), [("pretrain", 40_000), ("calibrate", 40_000), ("linear", 900), ("table", 9)]
)
@pytest.mark.parametrize("older", [True, False])
def test_a_full_disk_leaves_no_part_of_a_file_and_keeps_an_older_one(
    project: Project, refusal: Refusal, stage: str, limit: int, older: bool
) -> None:
    if not older:
        shutil.rmtree(MADE[stage].parent)
    with files_limited_to(limit):
        assert "the disk is full" in refusal(*STAGES[stage])


def test_a_gpu_that_is_not_there_is_refused(project: Project, refusal: Refusal) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = "--device cuda: PyTorch sees no GPU on this machine; use --device cpu, or auto"
    assert refusal(*STAGES["linear"], "--device", "cuda") == said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("nosuch", "No such command 'nosuch'"),
        ("plan --nosuch", "No such option: --nosuch"),
        ("pretrain tiny us3l", "Missing argument"),
        ("pretrain tiny us3l zero", "Invalid value for 'seed'"),
        ("linear tiny us3l 0 --device tpu", "'tpu' is not one of"),
        ("plan --params", "Option '--params' requires an arg"),
    ],
)
def test_a_command_that_is_mistyped_exits_with_2(us3l: Command, command: str, said: str) -> None:
    code, _, errors = us3l(*command.split())
    assert code == 2
    assert said in errors


def test_the_plan_names_runs_widths_and_how_many_files_are_there(project: Project, us3l: Command) -> None:
    EVALUATION.unlink()
    lines = us3l("plan")[1].splitlines()
    run = ["tiny", "us3l", "digits", "small-resnet", "1", "0.25", "1", "2/2", "2/2", "1/2"]
    assert run in [line.split() for line in lines]
    assert f"table {TABLE}: 4/4 files, 1/2 evaluations" in lines


def test_the_targets_of_a_stage_are_the_files_it_makes(project: Project, us3l: Command) -> None:
    for stage in ("pretrain", "calibrate", "linear"):
        printed = us3l("targets", stage, "tiny", "us3l")[1].split()
        assert str(MADE[stage]) in printed
        assert all(Path(path).is_file() for path in printed)


def test_a_process_of_its_own_says_the_same(project: Project) -> None:
    assert project.run("us3l", "table", "tiny", "nosuch") == (
        2,
        "us3l: params.yaml has no table 'tiny nosuch'; it has: tiny main\n",
    )


@pytest.mark.parametrize("command", ["--help", "plan", "targets linear tiny us3l", "table tiny main"])
def test_commands_that_compute_nothing_do_not_import_torch(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    imports = project.must("us3l", *command.split())
    assert "| us3l.cli\n" in imports.replace("|   ", "| ")
    assert " torch\n" not in imports


def test_the_help_lists_every_command(us3l: Command) -> None:
    printed = us3l("--help")[1]
    assert all(f" {command} " in printed for command in (*STAGES, "plan", "targets"))


def record(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["us3l"])
