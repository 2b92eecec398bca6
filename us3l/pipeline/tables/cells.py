"""What stands in a table: the evaluations of each cell that are there, and what they came from; without PyTorch."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.provenance import require_place
from us3l.utils.records import read_record

Records = dict[Path, dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """One evaluation: its seed, its top-1 accuracy in percent, and its record and those of what it came from."""

    seed: int
    top1: float
    records: Records


@dataclass(frozen=True)
class Cell:
    """The evaluations of one run at one width; `planned` is how many seeds there should be."""

    sources: list[Source]
    planned: int

    @property
    def values(self) -> list[float]:
        return [source.top1 for source in self.sources]

    @property
    def records(self) -> Records:
        return {path: record for source in self.sources for path, record in source.records.items()}

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def half_width(self) -> float | None:
        """Half of Student's 95% interval of the mean over seeds; None for fewer than two."""
        if len(self.values) < 2:
            return None
        from scipy.special import stdtrit

        n = len(self.values)
        return float(stdtrit(n - 1, 0.975)) * statistics.stdev(self.values) / n**0.5


Rows = list[list[Cell]]


def read_rows(plan: TablePlan) -> Rows:
    """The cells of each row; an evaluation that is absent leaves its seed out. Raises UserError for a damaged one."""
    rows: Rows = [[] for _ in plan.table.rows]
    upstream: Records = {}
    for index, width, run in plan.cells():
        seeds = run.seeds if run else ()
        there = [seed for seed in seeds if run.evaluation(seed, width).is_file()]
        rows[index].append(Cell([_source(run, seed, width, upstream) for seed in there], len(seeds)))
    return rows


def _source(run: RunPlan, seed: int, width: float, upstream: Records) -> Source:
    """An evaluation with the records of what it came from, which `upstream` keeps for the other widths."""
    path, *above = run.sources(seed, width)
    for each in above:
        if each not in upstream and each.is_file():
            upstream[each] = read_record(each)
    evaluation = read_record(path)
    kind = run.protocol.kind
    again = f"run `us3l {kind} {run.study} {run.name} {seed}`"
    require_place(path, evaluation, again, stage=kind, seed=seed, width=width)
    known = {each: upstream[each] for each in above if each in upstream}
    return Source(seed, evaluation["top1"], {path: evaluation, **known})
