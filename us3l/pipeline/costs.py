"""What a job will cost, from what others like it took."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunStage
from us3l.utils.errors import UserError
from us3l.utils.records import read_record


@dataclass(frozen=True)
class Cost:
    """Wall-clock hours of computing, and hours on GPUs."""

    hours: float
    gpu_hours: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.hours + other.hours, self.gpu_hours + other.gpu_hours)

    def scaled(self, factor: float) -> "Cost":
        return Cost(self.hours * factor, self.gpu_hours * factor)


FREE = Cost(0.0, 0.0)


class Benchmarks:
    """The costs that the records of jobs tell of."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._alike: dict[Any, list[Cost]] = {}
        self._similar: dict[Any, list[Cost]] = {}
        for job in jobs:
            if isinstance(job, RunStage) and (cost := _recorded(job)):
                self._alike.setdefault(_identity(job), []).append(cost)
                self._similar.setdefault(_kind(job), []).append(cost.scaled(1 / _amount(job)))

    def estimate(self, job: Job) -> Cost | None:
        """The mean of jobs with the same params, else of the same stage, network, data set and GPUs, by their epochs.

        None where there is none; data sets and tables are free.
        """
        if not isinstance(job, RunStage):
            return FREE
        if alike := self._alike.get(_identity(job)):
            return _mean(alike)
        if similar := self._similar.get(_kind(job)):
            return _mean(similar).scaled(_amount(job))
        return None


def _recorded(job: Job) -> Cost | None:
    try:
        records = [read_record(path) for path in job.outputs if path.suffix == ".json"]
    except UserError:
        return None
    return Cost(sum(each["seconds"] for each in records) / 3600, sum(each["gpu_hours"] for each in records))


def _identity(job: RunStage) -> Any:
    return job.stage, repr(job.stage_params), _kind(job)


def _kind(job: RunStage) -> Any:
    run = job.run
    return job.stage, run.data.name, run.backbone, run.run.kind == "untrained", run.run.resources.gpus


def _amount(job: RunStage) -> float:
    """Epochs times widths: what the cost of a stage is about proportional to."""
    run = job.run
    match job.stage:
        case "pretrain":
            return getattr(run.run, "epochs", 1)
        case "calibrate":
            return run.protocol.calibration.passes * len(run.widths)
    return getattr(run.protocol, "epochs", 1) * len(run.widths)


def _mean(costs: list[Cost]) -> Cost:
    return Cost(fmean(cost.hours for cost in costs), fmean(cost.gpu_hours for cost in costs))
