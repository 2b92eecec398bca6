"""The cells of tables that TABLE[:ROW[:COLUMN]] selects."""

from dataclasses import dataclass
from pathlib import Path

from us3l.params.schema import suggestion
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs, jobs_for
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import TablePlan
from us3l.utils.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Tables, the runs and widths of the selected cells, and the jobs that these depend on.

    params: the params file; included: the files that it includes, relative to it.
    """

    tables: list[TablePlan]
    widths: dict[RunPlan, list[float]]
    jobs: list[Job]
    params: Path
    included: list[str]


def select(plan: Plan, text: str | None, params: Path) -> Selection:
    """Select the cells that `text` names; None selects all runs and tables of the studies to build.

    ROW is a label, the beginning of one, or a number from 1; COLUMN is a width. Raises UserError for what is missing.
    """
    if text is None:
        return _everything(plan, params)
    name, _, rest = text.partition(":")
    table = _table(plan, name)
    index, width = _place(table, rest)
    widths: dict[RunPlan, list[float]] = {}
    for cell in table.cells:
        is_chosen = index in (None, cell.number) and width in (None, cell.width)
        if cell.run and is_chosen and cell.width not in widths.setdefault(cell.run, []):
            widths[cell.run].append(cell.width)
    if not widths:
        raise UserError(f"{text}: no run of params.yaml makes this cell")
    return Selection([table], widths, jobs_for(plan, widths, [table]), params, plan.included)


def _everything(plan: Plan, params: Path) -> Selection:
    """Select all that the studies to build make, whether or not a table shows it."""
    tables = [table for table in plan.tables.values() if table.study in plan.build]
    widths = {run: list(run.widths) for run in plan.runs.values() if run.study in plan.build}
    if not widths:
        raise UserError("params.yaml builds no run: name a table, as STUDY/TABLE, or a study under build")
    return Selection(tables, widths, jobs(plan, plan.build), params, plan.included)


def _table(plan: Plan, name: str) -> TablePlan:
    everywhere, built = plan.tables.values(), [t for t in plan.tables.values() if t.study in plan.build]
    found = [t for t in everywhere if name == f"{t.study}/{t.name}"] or [t for t in built if name == t.name]
    if len(found) != 1:
        names = [f"{table.study}/{table.name}" for table in everywhere]
        raise UserError(f"no table, or more than one, of {plan.file} is called {name!r}; {suggestion(name, names)}")
    return found[0]


def _place(table: TablePlan, text: str) -> tuple[int | None, float | None]:
    """Parse ROW[:COLUMN], None for all; a label may contain colons."""
    if not text:
        return None, None
    row, colon, column = text.rpartition(":")
    if not colon or text in [row.label for row in table.table.rows]:
        return _row(table, text), None
    try:
        return _row(table, row), _column(table, column)
    except UserError:
        if any(row.label.lower().startswith(text.lower()) for row in table.table.rows):
            return _row(table, text), None
        raise


def _row(table: TablePlan, text: str) -> int:
    labels = [row.label for row in table.table.rows]
    exact = [index for index, label in enumerate(labels) if text in (label, str(index + 1))]
    found = exact or [index for index, label in enumerate(labels) if label.lower().startswith(text.lower())]
    if len(found) != 1:
        raise UserError(f"{table.study}/{table.name}: no row, or more than one, begins with {text!r}; it has: {labels}")
    return found[0]


def _column(table: TablePlan, text: str) -> float:
    found = [width for width in table.widths if text.removesuffix("x") in (str(width), f"{width:g}")]
    if not found:
        widths = ", ".join(f"{width:g}x" for width in table.widths)
        raise UserError(f"{table.study}/{table.name}: no column is called {text!r}; it has: {widths}")
    return found[0]
