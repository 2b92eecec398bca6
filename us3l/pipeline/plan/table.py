"""A table of params.yaml: its files, and the evaluations that it is made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.params.study import Table
from us3l.pipeline.plan.run import RunPlan

TABLE_FORMATS = ("md", "csv", "tex", "json")


@dataclass(frozen=True, eq=False)
class TablePlan:
    """One table of a study and the evaluations it is made from."""

    study: str
    name: str
    table: Table
    widths: tuple[float, ...]
    runs: dict[str, RunPlan]

    @property
    def kind(self) -> str:
        """The kind of protocol that evaluates all of its runs."""
        return self._shown[0].protocol.kind

    @property
    def measure(self) -> str:
        """Name of the accuracy in its cells."""
        return self._shown[0].protocol.title

    @property
    def protocols(self) -> list[str]:
        """The names of the protocols that evaluate its runs."""
        return list(dict.fromkeys(run.protocol_name for run in self._shown))

    @property
    def _shown(self) -> list[RunPlan]:
        return [self.runs[name] for row in self.table.rows for name in row.names]

    def file(self, suffix: str) -> Path:
        return Path("results", self.study, "tables", f"{self.name}.{suffix}")

    @property
    def outputs(self) -> list[Path]:
        return [self.file(suffix) for suffix in TABLE_FORMATS]

    @property
    def inputs(self) -> list[Path]:
        """The evaluations that its cells are made from, and the records of what these came from."""
        return sorted({path for files in self._sources() for path in files})

    @property
    def inputs_there(self) -> list[Path]:
        """Those of its inputs that it is made from now: an evaluation that is absent leaves its seed out."""
        there = [files for files in self._sources() if files[0].is_file()]
        return sorted({path for files in there for path in files if path.is_file()})

    def _sources(self) -> list[list[Path]]:
        """For each seed of each cell the evaluation, and the records of what it came from."""
        return [list(run.sources(seed, width)) for _, width, run in self.cells() if run for seed in run.seeds]

    def cells(self) -> list[tuple[int, float, RunPlan | None]]:
        """For each cell its row, its width, and its run; None where no run of the row has the width."""
        cells = []
        for index, row in enumerate(self.table.rows):
            for width in self.widths:
                run = self.runs.get(row.run_at(width) or "")
                cells.append((index, width, run if run and width in run.widths else None))
        return cells

    @property
    def recipe(self) -> dict[str, Any]:
        table = self.table.model_dump(mode="json")
        return {"table": table, "kind": self.kind, "protocols": self.protocols, "widths": list(self.widths)}
