"""Which cells of which tables are meant by TABLE[:ROW[:COLUMN]]."""

from dataclasses import dataclass
from pathlib import Path

from us3l.errors import UserError
from us3l.jobs import Job, jobs
from us3l.plan import Plan, RunPlan, TablePlan


@dataclass(frozen=True)
class Selection:
    """Tables, the runs and widths of the selected cells, and the jobs that these rest on."""

    tables: list[TablePlan]
    widths: dict[RunPlan, list[float]]
    jobs: list[Job]
    params: Path


def select(plan: Plan, text: str | None, params: Path) -> Selection:
    """The cells that `text` names; all tables of the studies to build where it is None.

    ROW is a label, the beginning of one, or a number from 1; COLUMN is a width. Raises UserError for what is not there.
    """
    name, row, column = _split(text or "")
    tables = _tables(plan, name)
    widths: dict[RunPlan, list[float]] = {}
    for table in tables:
        index, width = _row(table, row), _column(table, column)
        for at, w, run in table.cells():
            if run and index in (None, at) and width in (None, w) and w not in widths.setdefault(run, []):
                widths[run].append(w)
    mine = [job for job in jobs(plan, plan.studies) if _rests_on(job, tables, widths)]
    return Selection(tables, widths, mine, params)


def _rests_on(job: Job, tables: list[TablePlan], runs: dict[RunPlan, list[float]]) -> bool:
    return job.of in tables or job.of in runs or any(job.of is run.data for run in runs)


def _split(text: str) -> tuple[str, str, str]:
    """Table, row and column; a label may have colons of its own."""
    name, _, rest = text.partition(":")
    row, _, column = rest.rpartition(":") if ":" in rest else (rest, "", "")
    return name, row, column


def _tables(plan: Plan, name: str) -> list[TablePlan]:
    built = [table for table in plan.tables.values() if table.study in plan.build]
    found = [t for t in plan.tables.values() if name == f"{t.study}/{t.name}"] or [t for t in built if t.name == name]
    if name and len(found) != 1:
        names = ", ".join(f"{table.study}/{table.name}" for table in plan.tables.values())
        raise UserError(f"no table, or more than one, is called {name!r}; params.yaml has: {names}")
    return found if name else built


def _row(table: TablePlan, text: str) -> int | None:
    labels = [row.label for row in table.table.rows]
    if not text:
        return None
    exact = [index for index, label in enumerate(labels) if text in (label, str(index + 1))]
    found = exact or [index for index, label in enumerate(labels) if label.lower().startswith(text.lower())]
    if len(found) != 1:
        raise UserError(f"{table.study}/{table.name}: no row, or more than one, begins with {text!r}; it has: {labels}")
    return found[0]


def _column(table: TablePlan, text: str) -> float | None:
    if not text:
        return None
    found = [width for width in table.widths if text.removesuffix("x") in (str(width), f"{width:g}")]
    if not found:
        widths = ", ".join(f"{width:g}x" for width in table.widths)
        raise UserError(f"{table.study}/{table.name}: no column is called {text!r}; it has: {widths}")
    return found[0]
