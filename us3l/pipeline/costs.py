"""Estimates of a job's cost, from the recorded costs of similar jobs."""

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


class RecordedCosts:
    """The costs in the records of jobs."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._same_params: dict[Any, list[Cost]] = {}
        self._same_kind: dict[Any, list[Cost]] = {}  # of one epoch at one width
        for job in jobs:
            if isinstance(job, RunStage) and (cost := _recorded_cost(job)):
                self._same_params.setdefault(_params_key(job), []).append(cost)
                self._same_kind.setdefault(_kind_key(job), []).append(cost.scaled(1 / _workload(job)))

    def estimate(self, job: Job) -> Cost | None:
        """Estimate a cost by the mean of jobs with the same params, or else of the same stage, network, data and GPUs.

        The latter mean is scaled by epochs and widths. None without such a record; data sets, tables and exports cost
        nothing.
        """
        if not isinstance(job, RunStage):
            return FREE
        if costs := self._same_params.get(_params_key(job)):
            return _mean(costs)
        if costs := self._same_kind.get(_kind_key(job)):
            return _mean(costs).scaled(_workload(job))
        return None


def _recorded_cost(job: Job) -> Cost | None:
    try:
        records = [read_record(path) for path in job.outputs if path.suffix == ".json"]
        return Cost(sum(each["seconds"] for each in records) / 3600, sum(each["gpu_hours"] for each in records))
    except UserError:
        return None


def _params_key(job: RunStage) -> Any:
    return job.stage, repr(job.stage_params), _kind_key(job)


def _kind_key(job: RunStage) -> Any:
    run = job.run
    return job.stage, run.data.name, run.backbone, run.run.kind == "untrained", run.run.resources.gpus


def _workload(job: RunStage) -> float:
    """Count epochs times widths, to which the cost of a stage is about proportional; a training counts its epochs."""
    run = job.run
    match job.stage:
        case "pretrain":
            return getattr(run.run, "epochs", 1)
        case "calibrate":
            return run.protocol.calibration.passes * len(run.widths)
    return getattr(run.protocol, "epochs", 1) * len(run.widths)


def _mean(costs: list[Cost]) -> Cost:
    return Cost(fmean(cost.hours for cost in costs), fmean(cost.gpu_hours for cost in costs))
