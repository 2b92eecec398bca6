"""A table of params.yaml: its files, the evaluations in its cells, and the job that writes it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from us3l.params.study import Row, Table
from us3l.pipeline.identity import Identity
from us3l.pipeline.plan.job import Job, Seals
from us3l.pipeline.plan.run import RunPlan

TABLE_FORMATS = ("md", "csv", "tex", "macros.tex", "html", "metrics.yaml", "json")


@dataclass(frozen=True)
class PlannedCell:
    """A cell's place in a table, and the run whose evaluations it shows; None if no run of the row has the width."""

    number: int  # of the row, from 0
    row: Row
    width: float
    run: RunPlan | None

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.run.seeds if self.run else ()


@dataclass(frozen=True, eq=False)
class TablePlan:
    """One table of a study, and the runs that it shows."""

    study: str
    name: str
    table: Table
    widths: tuple[float, ...]
    runs: dict[str, RunPlan]

    @property
    def kind(self) -> str:
        """Kind of the protocol that evaluates all of its runs."""
        return self._shown[0].protocol.kind

    @property
    def measure(self) -> str:
        """Name of the accuracy in its cells."""
        return self._shown[0].protocol.title

    @property
    def protocols(self) -> list[str]:
        """Names of the protocols that evaluate its runs."""
        return list(dict.fromkeys(run.protocol_name for run in self._shown))

    @property
    def _shown(self) -> list[RunPlan]:
        return [self.runs[name] for row in self.table.rows for name in row.names]

    def verify_command(self, cell: PlannedCell) -> str:
        """Return the command that derives a cell again."""
        return f'us3l verify "{self.study}/{self.name}:{cell.number + 1}:{cell.width:g}x" --level 3'

    def file(self, suffix: str) -> Path:
        return Path("results", self.study, "tables", f"{self.name}.{suffix}")

    @cached_property
    def cells(self) -> list[PlannedCell]:
        """Its cells, row by row, from the first width to the last."""
        cells = []
        for number, row in enumerate(self.table.rows):
            for width in self.widths:
                run = self.runs.get(row.run_at(width) or "")
                cells.append(PlannedCell(number, row, width, run if run and width in run.widths else None))
        return cells


@dataclass(frozen=True, eq=False)
class TableJob(Job):
    """The writing of a table."""

    table: TablePlan
    stage = "table"

    @property
    def names(self) -> tuple[str, ...]:
        return self.table.study, self.table.name

    @property
    def stage_params(self) -> dict[str, Any]:
        table = self.table
        settings = table.table.model_dump(mode="json")
        widths = list(table.widths)
        return {"table": settings, "kind": table.kind, "protocols": table.protocols, "widths": widths}

    @cached_property
    def inputs(self) -> list[Path]:
        """Records of the evaluations in its cells, and of the stages before them."""
        return sorted({path for files in self._lineages() for path in files})

    @property
    def present_inputs(self) -> list[Path]:
        """Inputs that exist now, without those of a seed whose evaluation is missing."""
        present = [files for files in self._lineages() if files[0].is_file()]
        return sorted({path for files in present for path in files if path.is_file()})

    def _lineages(self) -> list[list[Path]]:
        """List, for each seed of each cell, the records of the evaluation and of the stages before it."""
        return [
            list(cell.run.lineage(seed, cell.width)) for cell in self.table.cells if cell.run for seed in cell.run.seeds
        ]

    @property
    def outputs(self) -> list[Path]:
        return [self.table.file(suffix) for suffix in TABLE_FORMATS]

    @property
    def record(self) -> Path:
        return self.table.file("json")

    def identities(self, seals: Seals) -> dict[Path, Identity]:
        inputs = {str(path): seals.record(path) for path in self.present_inputs}
        return {self.record: self.identify(inputs=inputs)}
