"""The cells of a table: the evaluations of each that exist, and the records before them; without PyTorch."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import PlannedCell, TablePlan
from us3l.pipeline.requirements import require_place
from us3l.utils.records import read_record

Records = dict[Path, dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its seed, its top-1 accuracy in percent, its record and the records of the stages before it."""

    seed: int
    top1: float
    records: Records

    @property
    def record(self) -> dict[str, Any]:
        """Its own record."""
        return next(iter(self.records.values()))


@dataclass(frozen=True)
class Cell:
    """A cell's place in a table, and the evaluations of its run that exist."""

    place: PlannedCell
    evaluations: list[Evaluation]

    @property
    def values(self) -> list[float]:
        """Top-1 accuracies in percent, one for each seed."""
        return [evaluation.top1 for evaluation in self.evaluations]

    @property
    def planned(self) -> int:
        """Number of seeds of its run."""
        return len(self.place.seeds)

    @property
    def records(self) -> Records:
        return {path: record for evaluation in self.evaluations for path, record in evaluation.records.items()}

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def ci95(self) -> float | None:
        """Half of Student's 95% interval of the mean over seeds; None for fewer than two."""
        if len(self.values) < 2:
            return None
        from scipy.special import stdtrit

        n = len(self.values)
        return float(stdtrit(n - 1, 0.975)) * statistics.stdev(self.values) / n**0.5

    @property
    def wilson(self) -> tuple[float, float] | None:
        """Wilson's 95% interval over the test images, where there is one seed, and so none over seeds."""
        if len(self.evaluations) != 1:
            return None
        low, high = self.evaluations[0].record["interval"]
        return low, high

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval: Student's over seeds, or Wilson's over test images where there is one seed."""
        if self.mean is None or self.ci95 is None:
            return self.wilson
        return self.mean - self.ci95, self.mean + self.ci95

    def of_network(self, key: str) -> int | None:
        """Return what the records of all seeds say of the network, such as its macs; None without any."""
        return self.evaluations[0].record[key] if self.evaluations else None


def read_cells(table: TablePlan) -> list[Cell]:
    """Read the cells of a table, row by row, without the seeds whose evaluation is missing.

    Raises UserError for a damaged evaluation.
    """
    upstream: Records = {}
    return [read_cell(place, upstream) for place in table.cells]


def read_cell(place: PlannedCell, upstream: Records) -> Cell:
    """Read a cell as `read_cells` does; upstream: records of the stages before it that have been read."""
    return Cell(place, _evaluations(place, upstream))


def _evaluations(place: PlannedCell, upstream: Records) -> list[Evaluation]:
    run, width = place.run, place.width
    if run is None:
        return []
    present = [seed for seed in run.seeds if run.evaluation_record(seed, width).is_file()]
    return [_evaluation(run, seed, width, upstream) for seed in present]


def _evaluation(run: RunPlan, seed: int, width: float, upstream: Records) -> Evaluation:
    """Read an evaluation and the records of the stages before it; `upstream` caches these for the other widths."""
    path, *before = run.lineage(seed, width)
    for each in before:
        if each not in upstream and each.is_file():
            upstream[each] = read_record(each)
    evaluation = read_record(path)
    kind = run.protocol.kind
    rerun_hint = f"run `us3l {kind} {run.study} {run.name} {seed}`"
    require_place(path, evaluation, rerun_hint, stage=kind, seed=seed, width=width)
    known = {each: upstream[each] for each in before if each in upstream}
    return Evaluation(seed, evaluation["top1"], {path: evaluation, **known})
