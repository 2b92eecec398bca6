"""The command line as a user meets it: a mistake ends in one sentence and exit code 2, and nothing is half-written."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from full_disk import files_limited_to
from project import ROOT, Project, params
from safetensors.numpy import save_file

from us3l.cli import main
from us3l.params.dataset import Dataset
from us3l.params.params import Params
from us3l.params.runs import PretrainRun
from us3l.pipeline.plan.plan import Plan
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, read_weights, write_record

Command = Callable[..., tuple[int, str, str]]
Refusal = Callable[..., str]

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
NETWORK = Path("results/tiny/networks/us3l/seed0-w025.safetensors")
EVALUATION = Path("results/tiny/linear/us3l/seed0-w025.json")
TABLE = Path("results/tiny/tables/main.md")
TRAINING = Path("results/tiny/pretrain/us3l/seed0.json")
CALIBRATION = Path("results/tiny/calibrate/us3l/seed0.json")
DAMAGED = "damaged: it was changed after it was written; take it back with `dvc checkout` or git, or delete it"
NAMES = dict.fromkeys(("pretrain", "calibrate", "linear"), "tiny us3l 0") | {"prepare": "digits", "table": "tiny main"}
STAGES = {stage: (stage, *names.split(), "--force") for stage, names in NAMES.items()}
ARCHIVE = {"kind": "cifar10", "url": "file:///B\u00e4rchen", "md5": "0" * 32}
VIEWS = {"normalize": {"mean": [0.5] * 3, "std": [0.2] * 3}, "pretrain": [{"flip": 0.5}, {"flip": 0.5}]}
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
def refusal(us3l: Command) -> Refusal:
    """The sentence with which a command is refused, after any lines on progress; no file is made, changed or lost."""

    def run(*arguments: str) -> str:
        before = files()
        code, _, errors = us3l(*arguments)
        assert code == 2
        *progress, sentence = errors.splitlines()
        assert all(line.startswith(("us3l pre", "us3l cal", "us3l lin", "  ", "epoch ")) for line in progress)
        assert sentence.startswith("us3l: ")
        assert files() == before
        return sentence.removeprefix("us3l: ")

    return run


def files() -> dict[Path, bytes]:
    """Everything but runs/, where a training that fails may leave what it continues from, and the cache of seals."""
    everything = [path for path in Path().rglob("*") if path.is_file() and path.parts[0] not in ("runs", ".us3l")]
    return {path: path.read_bytes() for path in everything}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("prepare nosuch", "params.yaml has no dataset 'nosuch'; there is digits"),
        (
            "prepare digit --params ../{}/params.yaml",
            "../{}/params.yaml has no dataset 'digit'; did you mean 'digits'?",
        ),
        ("pretrain nosuch us3l 0", "params.yaml has no study 'nosuch'; there is tiny"),
        ("pretrain tiny us3 0", "params.yaml: the study 'tiny' has no run 'us3'; did you mean 'us3l'?"),
        ("calibrate tiny nosuch 0", "params.yaml: the study 'tiny' has no run 'nosuch'; there is us3l"),
        ("linear tiny us3l 7", "params.yaml: the study tiny has the seeds [0], and no 7"),
        ("table tiny nosuch", "params.yaml: the study 'tiny' has no table 'nosuch'; there is main"),
        ("table nosuch main", "params.yaml has no study 'nosuch'; there is tiny"),
        ("plan --study nosuch", "params.yaml has no study 'nosuch'; there is tiny"),
        ("why nosuch.json", "nosuch.json: no job of params.yaml makes this file; `us3l plan` lists the runs"),
        ("commit", "no .dvc and dvc.yaml here; run the command at the top of a project that DVC tracks"),
        ("verify nosuch", "no table of params.yaml is called 'nosuch'; there is tiny/main"),
        (
            "make nosuch",
            "the studies that params.yaml builds have no stage 'nosuch'; they have: plan, prepare@digits, "
            "tiny-pretrain@us3l, tiny-calibrate@us3l, tiny-linear@us3l, tiny-table@main",
        ),
        (
            "plan --params nosuch.yaml",
            "nosuch.yaml: no such file; run the command where params.yaml lies, or give --params",
        ),
    ],
)
def test_what_params_yaml_does_not_name_is_refused(
    project: Project, refusal: Refusal, command: str, message: str
) -> None:
    here = project.folder.name
    assert refusal(*command.format(here).split()) == message.format(here)


@pytest.mark.parametrize(
    ("stage", "absent", "message"),
    [
        ("pretrain", Path("data/digits"), ": there is no prepared data set; run `us3l prepare digits`"),
        ("calibrate", CHECKPOINT, ": no such file"),
        ("linear", NETWORK, ": no such file"),
    ],
)
def test_a_stage_before_its_turn_is_refused(
    project: Project, refusal: Refusal, stage: str, absent: Path, message: str
) -> None:
    shutil.rmtree(absent) if absent.is_dir() else absent.unlink()
    assert refusal(*STAGES[stage]).startswith(f"{absent}{message}")


def test_a_checkpoint_of_another_architecture_is_refused(project: Project, refusal: Refusal) -> None:
    import torch

    from us3l.utils.checkpoint import load, save

    tensors, about = load(CHECKPOINT)
    del about["seal"]
    save(CHECKPOINT, tensors | {"backbone.conv1.weight": torch.zeros(8, 1, 3, 3)}, about)
    message = refusal(*STAGES["calibrate"])
    assert message.startswith(f"{CHECKPOINT}: conv1.weight is (8, 1, 3, 3) here and (32, 1, 3, 3) in a small-resnet")


def write_about(path: Path, **changes: Any) -> None:
    """Change what a file of weights says of itself, and seal it anew."""
    from us3l.utils.checkpoint import load, save

    tensors, about = load(path)
    del about["seal"]
    save(path, tensors, about | changes)


def test_a_checkpoint_of_another_seed_is_refused_also_as_a_teacher(project: Project, refusal: Refusal) -> None:
    import torch

    from us3l.pipeline.stages.pretrain import load_teacher

    write_about(CHECKPOINT, seed=1)
    message = f"{CHECKPOINT}: holds seed 1, and by its name seed 0: pretrain again"
    assert refusal(*STAGES["calibrate"]) == message
    source = Plan(Params.model_validate(params(epochs=1))).run("tiny", "us3l")
    with pytest.raises(UserError) as refused:
        load_teacher(source, 0, 1, torch.device("cpu"))
    assert str(refused.value) == message


def test_a_network_of_another_seed_or_width_is_refused(project: Project, refusal: Refusal) -> None:
    write_about(NETWORK, seed=1)
    assert refusal(*STAGES["linear"]) == f"{NETWORK}: holds seed 1, and by its name seed 0: calibrate again"
    widest = NETWORK.with_stem("seed0-w100")
    write_about(NETWORK, seed=0)
    shutil.copy(NETWORK, widest)
    assert refusal(*STAGES["linear"]) == f"{widest}: holds width 0.25, and by its name width 1.0: calibrate again"


def test_a_record_of_another_stage_in_an_evaluations_place_stops_the_table(project: Project, refusal: Refusal) -> None:
    shutil.copy(CALIBRATION, EVALUATION)
    message = "holds stage calibrate, and by its name stage linear: run `us3l linear tiny us3l 0` again"
    assert refusal(*STAGES["table"]) == f"{EVALUATION}: {message}"


def test_a_batch_of_more_images_than_there_are_is_refused(project: Project, refusal: Refusal) -> None:
    project.write(params(batch={"size": 2048}))
    message = "studies.tiny.runs.us3l.batch.size is 2048, but digits has only 89 training images: take a smaller one"
    assert refusal(*STAGES["pretrain"]) == message
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_a_checkpoint_of_other_params_is_refused(project: Project, refusal: Refusal) -> None:
    project.write(params(epochs=1, optimizer={"lr": 0.04}))
    message = refusal(*STAGES["calibrate"])
    assert message.startswith(
        f"{CHECKPOINT}: made with run.optimizer.lr = 0.05, but params.yaml says 0.04: pretrain again"
    )


def test_a_network_of_other_params_is_refused(project: Project, refusal: Refusal) -> None:
    project.write(edited_protocol("calibration", {"passes": 1}))
    message = refusal(*STAGES["linear"])
    assert message.startswith(
        f"{NETWORK.with_stem('seed0-w100')}: made with calibration.passes = 3, but params.yaml says 1"
    )
    assert "calibrate again" in message


def test_an_evaluation_of_other_params_is_refused(project: Project, refusal: Refusal) -> None:
    project.write(edited_protocol("epochs", 3))
    message = (
        "made with protocol.epochs = 2, but params.yaml says 3: run `us3l linear tiny us3l 0` again, or undo the edit"
    )
    assert refusal(*STAGES["table"]) == f"{EVALUATION.with_stem('seed0-w100')}: {message}"


def edited_protocol(key: str, value: Any) -> dict[str, Any]:
    made = params(epochs=1)
    made["protocols"]["quick"][key] = value
    return made


OF_WEIGHTS = pytest.mark.parametrize(("stage", "path"), [("calibrate", CHECKPOINT), ("linear", NETWORK)])


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
@OF_WEIGHTS
def test_a_truncated_file_is_refused(project: Project, refusal: Refusal, stage: str, path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(*STAGES[stage])
    assert message.startswith(f"{path}: ") and (DAMAGED if kept < 0 else "if a stage wrote it, take it back") in message
    assert message.startswith(f"{path}: not a whole safetensors file") == (kept >= 0)


@OF_WEIGHTS
def test_weights_with_a_flipped_bit_are_refused(project: Project, refusal: Refusal, stage: str, path: Path) -> None:
    flip_a_bit(path, path.stat().st_size - 1000)
    assert refusal(*STAGES[stage]) == f"{path}: {DAMAGED}"


@pytest.mark.parametrize("stage", ["pretrain", "calibrate", "linear"])
def test_a_data_set_with_a_flipped_bit_is_refused(project: Project, refusal: Refusal, stage: str) -> None:
    flip_a_bit(Path("data/digits/test_images.npy"), 1000)
    message = "the prepared data set is damaged (the arrays are not those that meta.json tells of)"
    assert refusal(*STAGES[stage]) == f"data/digits: {message}; run `us3l prepare digits` again"


def flip_a_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_file_that_us3l_did_not_write_is_refused(project: Project, refusal: Refusal) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, CHECKPOINT)
    assert refusal(*STAGES["calibrate"]).startswith(f"{CHECKPOINT}: holds no us3l record")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", "\xff"])
def test_a_damaged_evaluation_stops_the_table(project: Project, refusal: Refusal, content: str) -> None:
    EVALUATION.write_text(content, encoding="latin-1")
    assert refusal(*STAGES["table"]) == f"{EVALUATION}: not a whole record; {DAMAGED}"


@pytest.mark.parametrize("record", [EVALUATION, CALIBRATION, TRAINING])
@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("params", {}), ("seconds", 0.0), ("more", None)])
def test_a_record_with_an_entry_changed_by_hand_stops_the_table(
    project: Project, refusal: Refusal, record: Path, key: str, value: Any
) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | {key: value}))
    assert refusal(*STAGES["table"]) == f"{record}: {DAMAGED}"


@pytest.mark.parametrize("key", ["width", "top1", "fingerprint", "network"])
def test_an_evaluation_with_an_entry_taken_out_by_hand_stops_the_table(
    project: Project, refusal: Refusal, key: str
) -> None:
    evaluation = json.loads(EVALUATION.read_text())
    del evaluation[key]
    EVALUATION.write_text(json.dumps(evaluation))
    assert refusal(*STAGES["table"]) == f"{EVALUATION}: {DAMAGED}"


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


@pytest.mark.parametrize(
    ("stage", "folder", "message"),
    [("pretrain", Path("results"), "Not a directory"), ("table", TABLE.parent, "File exists")],
)
def test_a_file_in_the_place_of_a_folder_is_told_with_what_to_do(
    project: Project, refusal: Refusal, stage: str, folder: Path, message: str
) -> None:
    shutil.rmtree(folder)
    folder.touch()
    made = MADE[stage]
    what = f"{made}: not writable: {message}; make {made.parent} a folder that you may write to"
    assert refusal(*STAGES[stage]) == what


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "import x.pth.tar --backbone resnet18 --write nosuch/x.safetensors",
            "nosuch: no such folder; give --write a file in one that is there",
        ),
        ("schema", "docs: no such folder; run the command at the top of this project's repository"),
        (
            "pretrain tiny us3l 0 --force --runs nosuch/runs",
            "nosuch/runs: no folder, and none can be made (No such file or directory); "
            "give --runs a folder to write in",
        ),
    ],
)
def test_nothing_is_written_into_a_folder_that_is_not_there(
    project: Project, refusal: Refusal, command: str, message: str
) -> None:
    assert refusal(*command.split()) == message
    assert not Path("nosuch").exists()


def test_a_name_of_any_characters_is_told_in_one_line(project: Project, refusal: Refusal) -> None:
    assert refusal("plan", "--params", "a\n\x1b[31mb\u202e.yaml").startswith(r"a\n\x1b[31mb\u202e.yaml: no such file")
    assert refusal("why", "a\nb").startswith(r"a\nb: no job of params.yaml makes this file")


def test_a_stage_dates_what_it_has_read_no_later_than_what_it_writes(project: Project, us3l: Command) -> None:
    """Else Snakemake deletes what it wrote, after the clock was set back."""
    read = [EVALUATION, TRAINING, Path(".snakemake/outdated")]
    read[-1].parent.mkdir()
    read[-1].touch()
    for path in read:
        os.utime(path, (time.time() + 3600,) * 2)
    assert us3l(*STAGES["table"])[0] == 0
    assert all(path.stat().st_mtime <= time.time() for path in read)


def test_a_locale_of_ascii_alone_is_no_hindrance(project: Project) -> None:
    content = params(epochs=1)
    content["studies"]["tiny"]["tables"]["main"]["title"] = "Täblé"
    content["datasets"]["cats"] = {"source": ARCHIVE, "views": VIEWS}
    (project.folder / "params.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    project.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    project.in_new_interpreter("us3l", "table", "tiny", "main")
    assert "Täblé" in TABLE.read_text(encoding="utf-8")
    assert project.in_new_interpreter("us3l", "why", str(TABLE)).endswith(
        "nothing that it rests on has changed since\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | project.environment
    command = [sys.executable, "-m", "us3l", "prepare", "cats"]
    refused = subprocess.run(command, env=environment, capture_output=True, encoding="ascii")
    assert refused.returncode == 2 and refused.stderr.count("us3l: ") == 1
    assert r"B\xe4rchen: this locale has no such characters (ascii); set LC_ALL=C.UTF-8" in refused.stderr


def test_a_gpu_that_is_not_there_is_refused(project: Project, refusal: Refusal) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    message = "--device cuda: PyTorch sees no GPU on this machine; use --device cpu, or auto"
    assert refusal(*STAGES["linear"], "--device", "cuda") == message


def test_a_gpu_whose_memory_is_full_is_told_with_the_ways_out(
    project: Project, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("us3l.pipeline.stages.evaluate.evaluate", full)
    message = "out of GPU memory: take fewer shards_at_once, a smaller batch.size, more gpus or precision bfloat16"
    assert refusal(*STAGES["linear"]) == message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nosuch", "No such command 'nosuch'"),
        ("plan --nosuch", "No such option: --nosuch"),
        ("pretrain tiny us3l", "Missing argument"),
        ("pretrain tiny us3l zero", "Invalid value for 'seed'"),
        ("linear tiny us3l 0 --device tpu", "'tpu' is not one of"),
        ("plan --params", "Option '--params' requires an arg"),
    ],
)
def test_a_command_that_is_mistyped_exits_with_2(us3l: Command, command: str, message: str) -> None:
    code, _, errors = us3l(*command.split())
    assert code == 2
    assert message in errors


def test_the_plan_names_runs_widths_and_how_many_jobs_are_up_to_date(project: Project, us3l: Command) -> None:
    assert plan_of_us3l(us3l) == (["1/1", "1/1", "1/1"], ["prepare digits: up to date", "table tiny main: up to date"])
    EVALUATION.unlink()
    assert plan_of_us3l(us3l) == (["1/1", "1/1", "0/1"], ["prepare digits: up to date", "table tiny main: to do"])
    assert "2 of 5 jobs to do" in us3l("plan")[1].splitlines()


def test_the_plan_counts_what_an_edit_leaves_up_to_date(project: Project, us3l: Command) -> None:
    project.write(edited_protocol("calibration", {"passes": 1}))
    assert plan_of_us3l(us3l) == (["1/1", "0/1", "0/1"], ["prepare digits: up to date", "table tiny main: to do"])
    project.write(params(epochs=2))
    assert plan_of_us3l(us3l) == (["0/1", "0/1", "0/1"], ["prepare digits: up to date", "table tiny main: to do"])


def test_the_plan_counts_widths_where_there_are_many(project: Project, us3l: Command) -> None:
    content = params()
    content["studies"]["tiny"]["widths"] = [1.0 - step / 40 for step in range(31)]
    project.write(content)
    assert "31 from 0.25 to 1 " in us3l("plan")[1]
    content["studies"]["tiny"]["widths"] = [1.0, 0.75, 0.5, 0.25]
    project.write(content)
    assert "1 0.75 0.5 0.25 " in us3l("plan")[1]


def plan_of_us3l(us3l: Command) -> tuple[list[str], list[str]]:
    """Of the run's line the counts, after what it is, and the lines that follow the runs."""
    title, run, *others, _ = us3l("plan")[1].splitlines()
    assert title.split()[-3:] == ["pretrain", "calibrate", "linear"]
    *facts, pretrain, calibrate, linear = run.split()
    assert facts == ["tiny", "us3l", "trained", "digits", "small-resnet", "1", "0.25", "1"]
    return [pretrain, calibrate, linear], others


def test_a_run_is_shown_with_all_that_determines_it(project: Project, us3l: Command) -> None:
    code, printed, _ = us3l("plan", "--show", "tiny/us3l")
    shown = yaml.safe_load(printed)
    assert code == 0 and list(shown) == ["run", "datasets", "protocols", "seeds", "widths"]
    made = Params.model_validate(params(epochs=1))
    assert PretrainRun.model_validate(shown["run"]) == made.studies["tiny"].runs["us3l"]
    assert shown["run"].keys() == PretrainRun.model_fields.keys()
    assert {name: Dataset.model_validate(each) for name, each in shown["datasets"].items()} == made.datasets
    assert shown["protocols"] == {"quick": made.protocols["quick"].model_dump(mode="json")}
    assert (shown["seeds"], shown["widths"]) == ([0], [1.0, 0.25])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tiny", "--show tiny: must be STUDY/RUN, such as tiny/us3l"),
        ("tiny/us3", "params.yaml: the study 'tiny' has no run 'us3'; did you mean 'us3l'?"),
        ("tin/us3l", "params.yaml has no study 'tin'; did you mean 'tiny'?"),
    ],
)
def test_a_run_that_there_is_not_is_not_shown(project: Project, us3l: Command, address: str, said: str) -> None:
    assert us3l("plan", "--show", address) == (2, "", f"us3l: {said}\n")


def test_the_plan_costs_what_the_jobs_to_do_took_before(project: Project, us3l: Command) -> None:
    for path, hours in ((EVALUATION, 0.5), (EVALUATION.with_stem("seed0-w100"), 0.25), (CALIBRATION, 2)):
        record = read_record(path)
        del record["seal"]
        write_record(path, record | {"seconds": 3600 * hours, "gpu_hours": 2 * hours})
    assert us3l("plan", "--cost")[1].splitlines()[-1] == "1 of 5 jobs to do: 0.000 hours, 0.000 GPU-hours"
    NETWORK.unlink()
    title, run, total = us3l("plan", "--cost")[1].splitlines()
    assert title.split() == ["study", "run", "pretrain", "calibrate", "linear", "hours", "GPU-hours"]
    assert run.split() == ["tiny", "us3l", "0", "1", "1", "2.750", "5.500"]
    assert total == "3 of 5 jobs to do: 2.750 hours, 5.500 GPU-hours"


def test_the_cost_of_what_no_record_tells_of_is_unknown(project: Project, us3l: Command) -> None:
    CALIBRATION.unlink()
    _, run, total = us3l("plan", "--cost")[1].splitlines()
    assert run.split() == ["tiny", "us3l", "0", "1", "1", "?", "?"]
    assert total == "3 of 5 jobs to do: ? hours, ? GPU-hours; runs that no record tells of: 1"


def test_a_known_cost_is_never_rounded_to_nothing(project: Project, us3l: Command) -> None:
    for path in (EVALUATION, EVALUATION.with_stem("seed0-w100"), CALIBRATION):
        record = read_record(path)
        del record["seal"]
        write_record(path, record | {"seconds": 0.5, "gpu_hours": 0.0})
    NETWORK.unlink()
    _, run, total = us3l("plan", "--cost")[1].splitlines()
    assert run.split()[-2:] == ["<0.001", "0.000"]
    assert total == "3 of 5 jobs to do: <0.001 hours, 0.000 GPU-hours"


def test_the_written_plan_has_an_entry_for_each_stage_of_dvc_yaml_and_a_new_date_alone_if_it_is_the_same(
    project: Project, us3l: Command
) -> None:
    path = Path("results/plan.json")
    us3l("plan")
    assert not path.exists()
    us3l("plan", "--write")
    written = json.loads(path.read_text())
    names = ("prepare@digits", *(f"tiny-{stage}" for stage in ("pretrain@us3l", "calibrate@us3l", "linear@us3l")))
    assert [*written] == [*names, "tiny-table@main"]
    assert written["tiny-pretrain@us3l"]["seeds"] == [0]
    assert written["tiny-pretrain@us3l"]["params"]["run"]["epochs"] == 1
    before = path.stat()
    us3l("plan", "--write")
    after = path.stat()
    assert json.loads(path.read_text()) == written
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
    project.write(params(epochs=2))
    us3l("plan", "--write")
    changed = json.loads(path.read_text())
    assert {name for name in changed if changed[name] != written[name]} == {"tiny-pretrain@us3l"}


@pytest.mark.parametrize(
    ("precision", "capabilities", "warns"),
    [
        ("bfloat16", {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ("bfloat16", {"avx512_bf16": True, "amx_bf16": False}, False),
        ("bfloat16", {"neon": True, "bf16": True}, False),
        ("float32", {}, False),
    ],
)
def test_a_cpu_that_emulates_bfloat16_says_so_and_what_else_to_choose(
    project: Project,
    us3l: Command,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    capabilities: dict[str, bool],
    warns: bool,
) -> None:
    project.write(params(precision=precision, epochs=1))
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    code, _, errors = us3l("pretrain", "tiny", "us3l", "0", "--force")
    assert code == 0
    assert ("studies.tiny.runs.us3l.precision: float32" in errors) == warns


def test_a_verification_that_fails_exits_with_1(project: Project, us3l: Command) -> None:
    assert us3l("verify", "--level", "1")[0] == 0
    flip_a_bit(NETWORK, NETWORK.stat().st_size - 1)
    code, printed, _ = us3l("verify", "--level", "1")
    assert code == 1
    assert f"{NETWORK}: {DAMAGED}" in printed
    assert us3l("verify", "--level", "0")[0] == 0


def test_every_record_names_the_seals_of_what_it_came_from(project: Project) -> None:
    data = json.loads(Path("data/digits/meta.json").read_text())["sha256"]
    checkpoint, network = (read_weights(path)[1]["seal"] for path in (CHECKPOINT, NETWORK))
    training, calibration, evaluation = (read_record(path) for path in (TRAINING, CALIBRATION, EVALUATION))
    assert read_record(Path("data/digits/prepare.json"))["data"] == data
    assert (training["data"], training["checkpoint"]) == (data, checkpoint)
    assert (calibration["data"], calibration["checkpoint"]) == (data, checkpoint)
    assert calibration["networks"] == {
        width: read_weights(NETWORK.with_stem(f"seed0-{width}"))[1]["seal"] for width in ("w100", "w025")
    }
    assert (evaluation["data"], evaluation["checkpoint"], evaluation["network"]) == (data, checkpoint, network)
    assert read_record(TABLE.with_suffix(".json"))["inputs"][str(EVALUATION)] == evaluation["seal"]


def test_a_stage_that_runs_again_writes_the_same_weights(project: Project, us3l: Command) -> None:
    before = files()
    for stage in ("pretrain", "calibrate"):
        us3l(*STAGES[stage])
    after = files()
    weights = [path for path in before if path.suffix == ".safetensors"]
    assert len(weights) == 5
    assert [path for path in weights if after[path] != before[path]] == []


@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_whose_result_is_up_to_date_says_so_and_does_nothing(
    project: Project, us3l: Command, stage: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in files()}
    code, printed, errors = us3l(stage, *NAMES[stage].split())
    assert (code, errors) == (0, "")
    assert printed == f"us3l {stage} {NAMES[stage]}: up to date; --force makes it again\n"
    assert {path: path.stat().st_mtime_ns for path in files()} == before
    assert us3l(*STAGES[stage])[0] == 0
    assert {path: path.stat().st_mtime_ns for path in files()} != before


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("prepare", Path("data/digits/test_labels.npy")),
        ("pretrain", CHECKPOINT),
        ("linear", EVALUATION),
        ("table", TABLE),
    ],
)
def test_a_damaged_result_is_made_again(project: Project, us3l: Command, stage: str, path: Path) -> None:
    whole = path.read_bytes()
    flip_a_bit(path, len(whole) - 5)
    assert "up to date" not in us3l(stage, *NAMES[stage].split())[1]
    after = path.read_bytes()
    assert after == whole if path.suffix != ".json" else read_record(path)


def test_a_result_of_an_outdated_one_is_not_up_to_date(project: Project, us3l: Command) -> None:
    project.write(params(epochs=1, optimizer={"lr": 0.04}))
    for stage in ("calibrate", "table"):
        code, printed, errors = us3l(stage, *NAMES[stage].split())
        assert (code, printed) == (2, "") and "made with run.optimizer.lr = 0.05" in errors
    assert us3l("prepare", "digits")[1].startswith("us3l prepare digits: up to date")


def test_the_processes_that_a_command_starts_are_told_to_make_it_again(
    project: Project, us3l: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr("us3l.utils.launch.process_count", lambda *_: 2)
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", lambda *_: lambda *each: started.append(each))
    us3l("pretrain", "tiny", "us3l", "0")
    assert started == []
    us3l(*STAGES["pretrain"])
    assert started == [("-m", "us3l", *STAGES["pretrain"])]


def test_a_process_of_its_own_says_the_same(project: Project) -> None:
    assert project.run("us3l", "table", "tiny", "nosuch") == (
        2,
        "us3l: params.yaml: the study 'tiny' has no table 'nosuch'; there is main\n",
    )


def imported(output: str) -> set[str]:
    """The modules that a process imported, as -X importtime tells of them."""
    return {line.rpartition("|")[2].strip() for line in output.splitlines() if line.count("|") == 2}


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "plan",
        "plan --cost --write",
        "status",
        f"why {TABLE}",
        "verify --level 0",
        "verify --level 1",
        "table tiny main --force",
        "prepare digits --force",
        *(f"{stage} {names}" for stage, names in NAMES.items()),
    ],
)
def test_commands_that_compute_nothing_do_not_import_torch(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    modules = imported(project.in_new_interpreter("us3l", *command.split()))
    assert "us3l.cli" in modules
    assert not {"torch", "torchvision"} & modules


@pytest.mark.parametrize("stage", ["pretrain", "calibrate", "linear"])
def test_stages_that_compute_import_nothing_beside_torch_that_takes_long(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    modules = imported(project.in_new_interpreter("us3l", *STAGES[stage]))
    slow = {"torchvision", "sklearn", "scipy", "pandas", "PIL", "sympy", "torch._dynamo", "torch._inductor"}
    assert "torch" in modules
    assert not slow & modules


def test_the_help_lists_every_command(us3l: Command) -> None:
    printed = us3l("--help")[1]
    assert all(
        f" {command} " in printed
        for command in (*STAGES, "features-linear", "knn", "finetune", "plan", "verify", "why", "make")
    )


@pytest.mark.parametrize("group", ["Make", "Look", "Check", "Ship", "For other tools"])
def test_help_shows_commands_in_groups(us3l: Command, group: str) -> None:
    assert f"─ {group} ─" in us3l("--help")[1]


def test_the_examples_of_the_help_name_commands_that_there_are(us3l: Command) -> None:
    printed = us3l("--help")[1]
    examples = [line.split()[1] for line in printed.partition("Examples:")[2].splitlines() if "us3l" in line]
    assert examples == ["init", "status", "show"]
    assert all(f"│ {name} " in printed for name in examples)


def test_a_shell_completes_commands(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_US3L_COMPLETE": "complete_bash", "COMP_WORDS": "us3l sta", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    assert us3l()[:2] == (0, "status\n")
