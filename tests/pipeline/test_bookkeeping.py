"""What results cost: seconds through interruptions, a width's share, hours of GPUs and cores, and estimates of jobs."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from project import RUN, params
from short_probes import shorten_probes
from stages import pass_stage, prepared
from torch import Tensor

from us3l.params.params import Params
from us3l.params.runs import PretrainRun
from us3l.pipeline import listing, provenance
from us3l.pipeline.costs import Cost, RecordedCosts
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.run_times import RunTimes
from us3l.pipeline.stages import calibrate, evaluate, pretrain
from us3l.training import trainer
from us3l.training.trainer import Trainer
from us3l.utils.distributed import World
from us3l.utils.records import read_record, write_record

CPU = torch.device("cpu")

# --- a training -----------------------------------------------------------------------------------------------------

STEPS, EPOCHS = 2, 3


class Clock:
    """A stand-in for the module time: three cores compute while the wall clock goes on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cores = 50.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.cores

    def compute(self, seconds: float) -> None:
        self.now += seconds
        self.cores += 3 * seconds


class Step:
    """A training step of two seconds, that is killed at its `last`."""

    def __init__(self, clock: Clock, last: int | None = None) -> None:
        self.clock, self.last, self.taken = clock, last, 0
        self.student = SimpleNamespace(weights=SimpleNamespace(values=torch.zeros(1)))

    def __call__(self, shards: Any, widths: list[float], epoch: float, lr: float) -> Tensor:
        if self.taken == self.last:
            raise KeyboardInterrupt
        self.taken += 1
        self.clock.compute(2.0)
        return torch.tensor([[0.5, 1.0]])

    def state(self) -> dict[str, Tensor]:
        return {"values": self.student.weights.values}

    def load_state(self, state: dict[str, Tensor]) -> None:
        pass


def training(state: Path, step: Step, save_every: float) -> Trainer:
    run = PretrainRun.model_validate(RUN | {"epochs": EPOCHS})
    stream: Any = SimpleNamespace(
        steps=STEPS, seed=0, world=World(0, 1, CPU), shards=lambda epoch, first: [[]] * (STEPS - first)
    )
    made: Any = step
    return Trainer(run, made, stream, state, save_every, "tiny")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(trainer, "time", made)
    return made


def test_seconds_are_those_of_computing_however_often_a_training_was_interrupted(tmp_path: Path, clock: Clock) -> None:
    """It is killed in the fourth step, after states of the second one: what it lost then is not counted."""
    state = tmp_path / "state"
    first = training(state, Step(clock, last=3), save_every=3.0)
    clock.compute(100.0)  # between its beginning and its first step
    with pytest.raises(KeyboardInterrupt):
        first.run_to_the_end()
    clock.compute(1000.0)  # until it is started again
    second = training(state, Step(clock), save_every=3.0)
    assert (second.epoch, second.step, second.seconds, second.core_seconds) == (0, 2, 4.0, 12.0)
    clock.compute(100.0)
    second.run_to_the_end()
    assert [entry["seconds"] for entry in second.history] == [4.0, 8.0, 12.0]
    assert (second.seconds, second.core_seconds) == (12.0, 36.0)


def test_an_epoch_ends_with_the_seconds_until_then_whether_or_not_a_state_was_saved(
    tmp_path: Path, clock: Clock
) -> None:
    made = training(tmp_path / "state", Step(clock), save_every=1000.0)
    made.run_to_the_end()
    assert [entry["seconds"] for entry in made.history] == [4.0, 8.0, 12.0]
    assert (made.seconds, made.core_seconds) == (12.0, 36.0)


def test_a_state_is_saved_once_in_so_many_seconds(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(Trainer, "save", lambda self: saved.append((self.epoch, self.step)))
    training(tmp_path / "state", Step(clock), save_every=4.0).run_to_the_end()
    assert saved == [(0, 2), (1, 2), (2, 2)]


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "processes", "gpu_hours"),
    [("cuda", 1, 0.5), ("cuda", 4, 2.0), ("cpu", 4, 0.0), (None, 1, 0.0)],
)
def test_gpu_hours_are_those_of_all_processes_on_gpus(
    monkeypatch: pytest.MonkeyPatch, device: str | None, processes: int, gpu_hours: float
) -> None:
    monkeypatch.setattr(provenance, "circumstances", lambda identity, device: {"finished": "now"})
    made = provenance.record({"stage": "x"}, device and torch.device(device), 1800.01264, processes)
    assert made["seconds"] == 1800.013
    assert made["gpu_hours"] == pytest.approx(gpu_hours, rel=1e-4)
    assert (made["processes"], made["finished"], made["stage"]) == (processes, "now", "x")


def ticking(monkeypatch: pytest.MonkeyPatch, module: Any, *times: float) -> None:
    """Let the clock of a stage show these times, one after the other, and no other."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=iter(times).__next__))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPlan:
    monkeypatch.chdir(tmp_path)
    shorten_probes(monkeypatch)
    content = params(batch={"size": 8, "shards": 2})
    content["protocols"]["quick"] = {"kind": "knn", "neighbours": 2}
    content["studies"]["tiny"]["widths"] = [1.0, 0.5, 0.25]
    planned = Plan(Params.model_validate(content)).run("tiny", "us3l")
    prepared(planned.data)
    return planned


class Two(World):
    """A process that believes to be one of two."""

    def any(self, flag: bool) -> bool:
        return flag


class Trained(Trainer):
    """A training that is done."""

    def run_to_the_end(self) -> None:
        self.seconds, self.core_seconds = 100.0, 30.1234


def test_a_training_records_the_seconds_of_the_cores_of_all_its_processes_and_each_width_its_share_of_an_evaluation(
    small: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "Trainer", Trained)
    pretrain.pretrain(RunStage(small, "pretrain", 0), Two(0, 2, CPU), Path("runs"), 60.0)
    trained = read_record(small.training_record(0))
    assert (trained["seconds"], trained["core_seconds"], trained["processes"]) == (100.0, 60.247, 2)
    ticking(monkeypatch, calibrate, 10.0, 17.5)
    pass_stage(RunStage(small, "calibrate", 0), CPU)
    assert read_record(small.calibration_record(0))["seconds"] == 7.5
    ticking(monkeypatch, evaluate, 100.0, 112.0)
    pass_stage(RunStage(small, "knn", 0), CPU)
    assert [read_record(path)["seconds"] for path in small.evaluation_records(0)] == [4.0, 4.0, 4.0]


# --- estimates ------------------------------------------------------------------------------------------------------


def content() -> dict[str, Any]:
    """Runs that differ from the first one in one thing each."""
    made = params()
    study = made["studies"]["tiny"]
    study["seeds"] = [0, 1, 2]
    made["datasets"]["more"] = deepcopy(made["datasets"]["digits"])
    made["protocols"]["near"] = {"kind": "knn", "calibration": {"passes": 6}}
    study["runs"] |= {
        "longer": RUN | {"epochs": 12},
        "narrow": RUN | {"sampling": {"range": [0.25, 0.5]}},
        "elsewhere": RUN | {"dataset": "more"},
        "on-a-gpu": RUN | {"resources": {"gpus": 1}},
        "other": RUN | {"backbone": "cifar-resnet18"},
        "as-is": {"kind": "untrained", "dataset": "digits", "backbone": "small-resnet", "resources": {"gpus": 0}},
    }
    made["studies"]["later"] = study | {"protocol": "near", "tables": {}, "runs": {"us3l": study["runs"]["us3l"]}}
    return made


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """With records of two seeds of `tiny us3l`: of 1 and 3 hours, and twice as many on GPUs."""
    monkeypatch.chdir(tmp_path)
    made = Plan(Params.model_validate(content()))
    for stage, factor in (("pretrain", 1.0), ("calibrate", 0.5), ("linear", 0.25)):
        for seed, hours in ((0, 1.0), (1, 3.0)):
            for path in RunStage(made.run("tiny", "us3l"), stage, seed).records:
                write_record(path, {"seconds": 3600 * factor * hours, "gpu_hours": 2 * factor * hours})
    return made


def estimate(plan: Plan, command: str) -> Cost | None:
    everything = jobs(plan, plan.studies)
    job = next(job for job in everything if job.command == command)
    return RecordedCosts(everything).estimate(job)


@pytest.mark.parametrize(
    ("command", "hours"),
    [
        ("prepare digits", 0.0),
        ("table tiny main", 0.0),
        ("pretrain tiny us3l 2", 2.0),
        ("calibrate tiny us3l 2", 1.0),
        ("linear tiny us3l 2", 1.0),  # a quarter at each of two widths
        ("pretrain tiny longer 0", 6.0),  # three times as many epochs
        ("linear tiny longer 0", 1.0),
        ("pretrain tiny narrow 0", 2.0),
        ("calibrate tiny narrow 0", 0.5),  # one width of two
        ("linear tiny narrow 0", 0.5),
        ("calibrate later us3l 0", 2.0),  # twice as many passes
        ("pretrain tiny elsewhere 0", None),
        ("pretrain tiny on-a-gpu 0", None),
        ("pretrain tiny other 0", None),
        ("pretrain tiny as-is 0", None),
        ("knn later us3l 0", None),
    ],
)
def test_a_cost_is_estimated_from_records_of_the_same_network_data_and_gpus_by_epochs_and_widths(
    plan: Plan, command: str, hours: float | None
) -> None:
    found = estimate(plan, command)
    if hours is None:
        assert found is None
    else:
        assert found is not None
        assert (found.hours, found.gpu_hours) == (pytest.approx(hours), pytest.approx(2 * hours))


@pytest.mark.parametrize(
    ("command", "attempt", "minutes"),
    [
        ("pretrain tiny us3l 2", 1, 250),  # of 2 hours, twice, and the start
        ("pretrain tiny us3l 2", 2, 500),
        ("pretrain tiny us3l 2", 3, 600),
        ("pretrain tiny other 0", 1, 600),  # no record tells of it
    ],
)
def test_a_job_asks_for_twice_its_cost_more_at_each_attempt_and_never_for_more_than_the_limit(
    plan: Plan, command: str, attempt: int, minutes: int
) -> None:
    everything = jobs(plan, plan.studies)
    job = next(job for job in everything if job.command == command)
    assert RunTimes(everything, limit=600).minutes(job, attempt) == minutes
    assert RunTimes(everything, limit=None).minutes(job, attempt) is None


def test_weights_that_are_not_trained_need_no_gpu(plan: Plan) -> None:
    of = {stage: RunStage(plan.run("tiny", "on-a-gpu"), stage, 0).gpus for stage in ("pretrain", "calibrate", "linear")}
    assert of == {"pretrain": 1, "calibrate": 1, "linear": 1}
    assert RunStage(plan.run("tiny", "as-is"), "pretrain", 0).gpus == 0


def test_the_cheapest_run_on_gpus_is_listed_first_and_those_that_no_record_tells_of_last(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    listing.show_costs(plan, "tiny")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    listed = [(row[1], *row[-2:]) for row in rows]
    assert listed[:3] == [
        ("narrow", "9.000", "18.000"),
        ("us3l", "12.000", "24.000"),
        ("longer", "24.000", "48.000"),
    ]
    assert [row[1:] for row in listed[3:]] == [("?", "?")] * 4


def test_hours_on_gpus_are_dearer_than_others(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    longer = plan.run("tiny", "longer")
    for path in (path for stage in longer.stages for path in RunStage(longer, stage, 0).records):
        write_record(path, {"seconds": 360000.0, "gpu_hours": 0.0})
    listing.show_costs(plan, "tiny")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    hours = {row[1]: float(row[-2]) for row in rows if row[-1] != "?"}
    assert rows[0][1] == "longer"
    assert hours["longer"] > max(hours["us3l"], hours["narrow"])


def test_costs_add_up_and_scale() -> None:
    assert Cost(1.0, 2.0) + Cost(0.5, 4.0) == Cost(1.5, 6.0)
    assert Cost(1.0, 2.0).scaled(3) == Cost(3.0, 6.0)
