"""What people see of jobs that run: status files on all hosts, logs, metrics."""

import csv
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from project import RUN, Project, params
from waiting import until

from us3l.params.params import Params
from us3l.params.runs import Metrics, PretrainRun
from us3l.params.sampling import FixedWidths, Sampling
from us3l.pipeline import dvc
from us3l.pipeline.dvc_file import DVC_FILE, write_dvc_file
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.watching import course as course_module
from us3l.pipeline.watching import job_status as status_module
from us3l.pipeline.watching.course import Course, Reading, width_names
from us3l.pipeline.watching.job_status import COMPUTING, FOLDER, JobStatus, duration, found_jobs, job_status
from us3l.pipeline.watching.logs import require_log_folder
from us3l.pipeline.watching.metrics import writers
from us3l.pipeline.watching.running import running
from us3l.pipeline.watching.status import NOTHING, status_lines
from us3l.training.trainer import Trainer
from us3l.utils import extras
from us3l.utils.errors import Interrupted, UserError
from us3l.utils.records import read_record, write_record

Command = Callable[..., tuple[int, str, str]]
NO_PROCESS = 2**22  # more than Linux gives


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStage:
    monkeypatch.chdir(tmp_path)
    Project(tmp_path, params())
    return RunStage(Plan(Params.model_validate(params())).run("tiny", "us3l"), "pretrain", 0)


def lines(runs: Path = Path("runs")) -> list[str]:
    return status_lines(Plan(Params.model_validate(params())), runs)


def leave(job: RunStage, age: float = 0.0, **facts: Any) -> Path:
    """Leave the status file of a job, as another process would that wrote it so many seconds ago."""
    status = JobStatus(job, "training")
    status._facts |= facts
    path = FOLDER / f"{facts.get('host', 'here')}-{facts.get('process', 0)}.json"
    status._path = path
    status.write()
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


# --- status files ---------------------------------------------------------------------------------------------------


def test_where_nothing_runs_status_says_so(job: RunStage, us3l: Command) -> None:
    assert us3l("status") == (0, f"{NOTHING}\n", "")


def test_a_job_that_runs_says_where_it_is_and_leaves_nothing_when_it_has_ended_well(job: RunStage) -> None:
    with job_status(job, "starting") as status:
        place = {"epoch": 2, "epochs": 4, "step": 3, "steps": 9, "images_per_second": 1234.0, "seconds_left": 7000.0}
        status.follow(lambda: {**place, "losses": {"1x": 4.5, "0.25x": 4.75}, "spreads": {"1x": 1.0, "0.25x": 0.5}})
        status.say("training", device="cpu", folder="runs/0f")
        first, second, third, *_ = lines()
        assert first.startswith(f"running     us3l pretrain tiny us3l 0  on {platform.node()}, cpu, since 20")
        assert second.split("  ")[-3:] == ["epoch 3/4 step 3/9", "1,234 images/s", "1 h 57 min left"]
        assert third.strip() == "loss 1x 4.5000, 0.25x 4.7500; spread 1x 1.0000, 0.25x 0.5000"
        status.say("waiting for a GPU")
        assert lines()[0].startswith("waiting ") and lines()[0].endswith("waiting for a GPU")
    assert lines() == [NOTHING] and not [*FOLDER.iterdir()]


def test_a_job_that_does_not_say_how_far_it_is_has_the_time_left_that_jobs_like_it_took(job: RunStage) -> None:
    calibration = RunStage(job.run, "calibrate", 0)
    with job_status(calibration, COMPUTING):
        assert len(lines()) == 1
        write_record(calibration.record, {"seconds": 7000.0, "gpu_hours": 0.0})
        assert lines()[1].strip() == "about 1 h 57 min left, by the records of jobs like it"
        write_record(calibration.record, {"seconds": 0.0, "gpu_hours": 0.0})
        assert lines()[1].strip() == "about 0 s left, by the records of jobs like it"


def test_a_sign_of_life_is_written_while_the_job_computes(job: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "BEAT", 0.01)
    counter = iter(range(10**9))
    with job_status(job, "starting") as status:
        status.follow(lambda: {"step": next(counter)})
        until(lambda: found_jobs()[0][0].facts.step > 1, "a second sign of life")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("no data"), "no data"),
        (Interrupted(15), "stopped by SIGTERM; the same command continues from here"),
        (SystemExit(130), "stopped by SIGINT"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_a_job_that_breaks_off_leaves_why_until_it_is_started_again(
    job: RunStage, error: BaseException, reason: str
) -> None:
    with pytest.raises(type(error)), job_status(job, "starting"):
        raise error
    [line, *_] = lines()
    assert line.startswith("broken off  us3l pretrain tiny us3l 0 ") and line.endswith(f": {reason}")
    with job_status(job, "starting"):
        assert [each.why_dead for each in found_jobs()[0]] == [""]
    assert lines() == [NOTHING]


def test_a_process_of_this_host_that_is_gone_is_told_from_one_that_runs(job: RunStage) -> None:
    leave(job, host=platform.node(), process=NO_PROCESS)
    assert lines()[0].endswith(f": process {NO_PROCESS} is gone; it was killed, or the machine was")
    leave(job, age=1000.0, host=platform.node(), process=NO_PROCESS)
    leave(job, host=platform.node(), process=os.getpid())
    assert sum(line.startswith("running") for line in lines()) == 1


@pytest.mark.parametrize(("age", "start"), [(3.0, "running"), (3600.0, "broken off")])
def test_a_job_of_another_host_runs_as_long_as_it_gives_signs_of_life(job: RunStage, age: float, start: str) -> None:
    Path("runs/0f").mkdir(parents=True)
    leave(job, age, host="node7", process=NO_PROCESS, folder="runs/0f")
    first, *rest = lines()
    assert first.startswith(start) and " on node7, " in first
    is_dead = start == "broken off"
    assert first.endswith("no sign of life from node7 for 60 min: the host is dead or cut off") == is_dead
    assert any("runs/0f: the same command goes on from it" in line for line in rest) == is_dead


def test_a_job_that_was_done_after_it_had_broken_off_is_not_listed(job: RunStage) -> None:
    leave(job, age=100.0, host="node7", process=1, ended="killed")
    assert lines() != [NOTHING]
    write_record(job.record, {})
    assert lines() == [NOTHING]


@pytest.mark.parametrize("change", [{"epochs": None}, {"new": 1}])
def test_a_status_file_of_another_version_is_named_in_one_sentence(job: RunStage, change: dict[str, Any]) -> None:
    path = leave(job, host="node7")
    write_record(path, {key: value for key, value in read_record(path).items() if key != "seal"} | change)
    assert lines() == [f"{path}: another version of us3l wrote it; delete it once its job has ended"]


def test_a_status_file_that_is_no_record_is_named_in_one_sentence(job: RunStage) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "x.json").write_text("{")
    assert len(lines()) == 1 and lines()[0].startswith(f"{FOLDER / 'x.json'}: not a whole record")


def test_a_folder_of_status_files_that_cannot_be_written_ends_no_job(job: RunStage) -> None:
    Path(".us3l").touch()
    with job_status(job, "starting"):
        pass
    assert lines() == [NOTHING]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (7000, "1 h 57 min"), (190_000, "2 d 4 h")]
)
def test_durations_are_in_the_units_that_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- run directories ------------------------------------------------------------------------------------------------


def test_a_run_directory_of_a_dead_host_says_what_it_is_of(job: RunStage) -> None:
    folder = Path("runs/0f")
    about = {**status_module.describe_job(job), "host": "node7", "started": "2026-01-02T03:04:05+00:00"}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(about))
    assert lines() == [
        "broken off  us3l pretrain tiny us3l 0  on node7, since 2026-01-02T03:04:05+00:00: its process is gone",
        "            state runs/0f: the same command goes on from it",
    ]


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_run_directory_of_an_older_version_is_named_in_one_sentence(job: RunStage, content: str | None) -> None:
    Path("runs/0f").mkdir(parents=True)
    if content:
        Path("runs/0f/run.json").write_text(content)
    assert lines() == ["broken off  runs/0f: does not say what it is of; an older version of us3l left it"]


# --- the course of a training ---------------------------------------------------------------------------------------


class Told:
    """A bar that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0

    def advance_to(self, done: int) -> None:
        self.done = done

    def show(self, text: str) -> None:
        pass

    def line(self, text: str) -> None:
        self.lines.append(text)


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


STEPS, EPOCHS = 4, 4
Spreads = tuple[float, float]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(course_module, "time", made)
    return made


@pytest.fixture
def told() -> Told:
    return Told()


def watch(
    told: Any, clock: Clock, readings: list[Reading], epochs: int, seconds: float, spreads: Spreads = (1.0, 1.0)
) -> Course:
    """Watch some epochs of a training whose loss is the number of the step, and ten times that at the second width."""
    run = PretrainRun.model_validate(RUN | {"epochs": EPOCHS, "sampling": {"widths": [0.5, 1.0]}})
    trainer: Any = SimpleNamespace(
        run=run, epoch=0, step=0, totals=torch.zeros(2, 2), history=[], rate=0.1, stream=SimpleNamespace(steps=STEPS)
    )
    course = Course(trainer, told, [readings.append], 3)
    for epoch in range(epochs):
        for step in range(STEPS):
            number = epoch * STEPS + step
            result = torch.tensor([[number, spreads[0]], [10 * number, spreads[1]]])
            trainer.totals = trainer.totals + result if trainer.step else result
            trainer.step += 1
            clock.now += seconds
            course.step()
        losses, feature_stds = (trainer.totals / STEPS).T.tolist()
        trainer.history.append({"epoch": epoch, "lr": 0.1, "loss": losses, "feature_std": feature_stds})
        trainer.epoch, trainer.step = epoch + 1, 0
        course.epoch()
    return course


def test_metrics_are_means_over_the_steps_since_the_last_ones_of_an_epoch(told: Told, clock: Clock) -> None:
    readings: list[Reading] = []
    watch(told, clock, readings, 2, 1.0)
    assert [(each.step, each.epoch) for each in readings] == [(3, 0), (6, 1)]
    assert [each.losses for each in readings] == [{"1x": 1.0, "0.5x": 10.0}, {"1x": 4.5, "0.5x": 45.0}]


def test_an_epoch_ends_with_a_line_that_names_the_widths_and_the_time_left(told: Told, clock: Clock) -> None:
    course = watch(told, clock, [], 2, 1.0)
    assert told.lines == [
        "epoch 1/4  lr 0.1  loss 1x 1.5000, 0.5x 15.0000  spread 1x 1.0000, 0.5x 1.0000  32 images/s  12 s left",
        "epoch 2/4  lr 0.1  loss 1x 5.5000, 0.5x 55.0000  spread 1x 1.0000, 0.5x 1.0000  32 images/s  8 s left",
    ]
    assert told.done == 8
    progress = course.progress()
    assert (progress["epoch"], progress["step"], progress["losses"]) == (2, 0, {"1x": 5.5, "0.5x": 55.0})


def test_a_status_file_leaves_out_what_is_not_finite(told: Told, clock: Clock) -> None:
    progress = watch(told, clock, [], 1, 1.0, (1.0, float("nan"))).progress()
    assert progress["spreads"] == {"1x": 1.0} and progress["losses"] == {"1x": 1.5, "0.5x": 15.0}


def test_in_a_long_epoch_there_is_a_line_a_minute(told: Told, clock: Clock) -> None:
    watch(told, clock, [], 1, 31.0)
    assert [line.partition("  ")[0] for line in told.lines] == ["epoch 1/4 step 2/4", "epoch 1/4 step 4/4", "epoch 1/4"]


@pytest.mark.parametrize(("spreads", "collapsed"), [((1.0, 0.09), True), ((0.09, 1.0), True), ((1.0, 0.11), False)])
def test_the_collapse_of_one_width_is_said(told: Told, clock: Clock, spreads: Spreads, collapsed: bool) -> None:
    watch(told, clock, [], 1, 1.0, spreads)
    assert told.lines[0].endswith("; the embeddings have collapsed") == collapsed


@pytest.mark.parametrize(
    ("sampling", "epoch", "names"),
    [
        (Sampling(), 0, ["1x"]),
        (Sampling(), 1, ["1x", "between", "0.75x"]),
        (Sampling(schedule="constant", widths_per_step=4), 0, ["1x", "between-1", "between-2", "0.25x"]),
        (Sampling(schedule="constant", rule="uniform"), 0, ["between-1", "between-2", "between-3"]),
        (Sampling(range=(0.5, 0.5), widths_per_step=1), 3, ["0.5x"]),
        (FixedWidths(widths=[0.5, 1.0]), 0, ["1x", "0.5x"]),
    ],
)
def test_each_loss_has_the_name_of_its_width(sampling: Any, epoch: int, names: list[str]) -> None:
    from us3l.training.width_sampling import sample

    assert width_names(sampling, epoch, 4) == names
    assert len(sample(sampling, epoch, 4, 0, 0)) == len(names)


# --- metrics --------------------------------------------------------------------------------------------------------


def reading(step: int) -> Reading:
    return Reading(step, 0, 0.1, {"1x": 4.0, "0.5x": 5.0}, {"1x": 1.0, "0.5x": 0.5}, 100.0, 1.0)


def write(job: RunStage, done: int, *steps: int, **settings: bool) -> None:
    with writers(Metrics(**settings), job, Path("metrics.csv"), done) as opened:
        for step in steps:
            for each in opened:
                each(reading(step))


def test_metrics_after_the_saved_step_are_written_again(job: RunStage) -> None:
    write(job, 0, 50, 100, 150)
    write(job, 100, 150)
    with Path("metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["step"], row["width"]) for row in rows] == [
        (step, width) for step in ("50", "100", "150") for width in ("1x", "0.5x")
    ]
    assert rows[1] == {
        "step": "50",
        "epoch": "1",
        "lr": "0.1",
        "width": "0.5x",
        "loss": "5",
        "spread": "0.5",
        "images_per_second": "100.0",
    }


def test_a_metrics_file_that_cannot_be_written_is_said(job: RunStage) -> None:
    Path("metrics.csv").mkdir()
    with pytest.raises(UserError, match=r"^metrics.csv: the metrics cannot be written: Is a directory; mend this"):
        write(job, 0)


@pytest.mark.parametrize("name", ["tensorboard", "dvclive"])
def test_a_writer_whose_package_is_missing_is_refused(
    job: RunStage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"^metrics.{name} needs {name}: pip install 'us3l\[{name}\]'$"):
        write(job, 0, **{name: True})


@pytest.mark.parametrize("name", ["tensorboard", "dvclive"])
def test_a_log_folder_that_cannot_be_written_is_said(job: RunStage, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: module)
    Path("logs").touch()
    with pytest.raises(UserError, match=rf"^logs/{name}/tiny/us3l/seed0: no folder that logs can be written to \("):
        write(job, 0, **{name: True})
    with pytest.raises(UserError, match=r"^logs: no folder that logs can be written to \(File exists\)"):
        require_log_folder()


def test_tensorboard_shows_the_metrics(job: RunStage) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(job, 0, 50, 100, tensorboard=True)
    board = events.EventAccumulator("logs/tensorboard/tiny/us3l/seed0").Reload()
    assert [(each.step, each.value) for each in board.Scalars("loss/0.5x")] == [(50, 5.0), (100, 5.0)]
    assert {*board.Tags()["scalars"]} == {"lr", "loss/1x", "loss/0.5x", "spread/1x", "spread/0.5x"}


def test_dvclive_has_the_metrics(job: RunStage) -> None:
    pytest.importorskip("dvclive")
    write(job, 0, 50, 100, dvclive=True)
    rows = Path("logs/dvclive/tiny/us3l/seed0/plots/metrics/loss/0.5x.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows[1:]] == ["50", "100"]


# --- commands -------------------------------------------------------------------------------------------------------


def test_a_training_says_what_it_does_where_to_look_and_what_came_of_it(
    job: RunStage, us3l: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = params(epochs=2, batch={"size": 22, "shards": 2}, metrics={"every": 3})
    Project(Path(), content)
    assert us3l("prepare", "digits")[2].splitlines()[-1] == "data/digits: 89 training and 1,708 test images"
    monkeypatch.setattr(Trainer, "run_to_the_end", interrupted_once(Trainer.run_to_the_end))
    code, _, first = us3l("pretrain", "tiny", "us3l", "0")
    assert code == 2
    [folder] = [path for path in Path("runs").iterdir() if path.is_dir()]
    about = json.loads((folder / "run.json").read_text())
    assert (about["names"], about["seed"], about["host"]) == (["tiny", "us3l"], 0, platform.node())
    assert us3l("status")[1].splitlines()[0].endswith(": broken after the first epoch")
    code, _, second = us3l("pretrain", "tiny", "us3l", "0")
    assert code == 0
    head, stop, look, recipe, images, hardware, metrics, epoch, last = second.splitlines()
    assert head.startswith("us3l pretrain tiny us3l 0, 20") and f"kill {os.getpid()}" in stop and "us3l status" in look
    assert "small-resnet at 0.25 to 1.0" in recipe and images.endswith("; goes on in epoch 2 after step 1")
    assert "thread" in hardware and str(folder) in metrics and epoch.startswith("epoch 2/2  lr ")
    assert last.startswith("results/tiny/checkpoints/us3l/seed0.safetensors: loss ")
    rows = [*csv.DictReader(Path("logs/pretrain/tiny/us3l/seed0.csv").read_text().splitlines())]
    assert list(dict.fromkeys(row["step"] for row in rows)) == ["3", "6"]
    assert [*Path("runs").iterdir()] == [] and us3l("status")[1] == f"{NOTHING}\n"
    assert "epoch 1/2" in first


def interrupted_once(run_to_the_end: Callable[[Trainer], None]) -> Callable[[Trainer], None]:
    """Break a training off in the first step of its second epoch, with that saved."""
    calls: Iterator[int] = iter(range(10))

    def run(trainer: Trainer) -> None:
        if next(calls) == 0:
            trainer.watchers.append(Breaking(trainer))
        run_to_the_end(trainer)

    return run


class Breaking:
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def step(self) -> None:
        if self.trainer.epoch == 1:
            self.trainer.save()
            raise UserError("broken after the first epoch")

    def epoch(self) -> None:
        pass


@pytest.mark.parametrize(("rank", "says"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_one_tells(
    job: RunStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, says: bool
) -> None:
    monkeypatch.setenv("RANK", rank)
    with running(job, "cpu", 0, 1) as (device, status):
        assert device == torch.device("cpu") and (status is not None) == says
        assert (lines() != [NOTHING]) == says
    assert ("us3l pretrain tiny us3l 0" in capsys.readouterr().err) == says


# --- what DVC records -----------------------------------------------------------------------------------------------


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would be called."""
    made: list[list[str]] = []
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(dvc.subprocess, "run", lambda command, **_: made.append(command) or done)
    return made


def targets(command: list[str]) -> list[str]:
    return command[command.index("--no-relink") + 1 :]


def test_dvc_records_all_stages_at_once_where_all_are_up_to_date(
    job: RunStage, called: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And only those that have changed where another stage is not; DVC reads and writes its files for each of these."""
    plan = Plan(Params.model_validate(params()))
    Path(".dvc").mkdir()
    write_dvc_file(plan)
    stale: list[str] = []
    monkeypatch.setattr(dvc, "jobs_to_do", lambda jobs: {each: {} for each in jobs if each.stage in stale})
    dvc.commit(plan, ["results/tiny/pretrain/us3l/seed0.json"])
    stale.append("table")
    dvc.commit(plan, ["results/tiny/pretrain/us3l/seed0.json"])
    whole, some = map(targets, called)
    assert whole == ["dvc.yaml"] and some[0] == "plan" and "tiny-pretrain" in some and "tiny-table" not in some
    assert capsys.readouterr().err.count("us3l: DVC records what was made") == 2


def test_a_dvc_yaml_with_stages_of_the_user_is_recorded_stage_by_stage(
    job: RunStage, called: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(Params.model_validate(params()))
    Path(".dvc").mkdir()
    write_dvc_file(plan)
    theirs = yaml.safe_load(DVC_FILE.read_text())
    theirs["stages"]["mine"] = {"cmd": "true"}
    DVC_FILE.write_text(yaml.safe_dump(theirs))
    monkeypatch.setattr(dvc, "jobs_to_do", lambda jobs: {})
    dvc.commit(plan, ["results/tiny/pretrain/us3l/seed0.json"])
    assert "plan" in targets(called[0]) and not {"dvc.yaml", "mine"} & {*targets(called[0])}
