"""The cells of tables that STUDY/TABLE[:ROW[:COLUMN]] selects."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from us3l.params.schema import MAX_LISTED, suggestion
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs, jobs_for
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import PlannedCell, TablePlan
from us3l.utils.errors import UserError

RESULTS = Path("results")


@dataclass(frozen=True)
class Selection:
    """Tables, the runs and widths of the selected cells, and the jobs of the plan that these depend on.

    folders: where no other files may lie than those of the plan.
    """

    tables: list[TablePlan]
    widths: dict[RunPlan, list[float]]
    jobs: list[Job]
    plan: Plan
    folders: list[Path]


def select(plan: Plan, text: str | None) -> Selection:
    """Select the cells that `text` names; None selects all runs and tables of the studies to build.

    STUDY may be left out where one table to build has the name; ROW is a label, the beginning of one, or a number from
    1; COLUMN is a width. Raises UserError for what is missing, and for a name of several, with what to type instead.
    """
    if text is None:
        return replace(of_studies(plan, plan.build), folders=[RESULTS])
    table, cells = cells_of(plan, text)
    widths: dict[RunPlan, list[float]] = {}
    for cell in cells:
        if cell.run and cell.width not in widths.setdefault(cell.run, []):
            widths[cell.run].append(cell.width)
    return Selection([table], widths, jobs_for(plan, widths, [table]), plan, [RESULTS / table.study])


def of_studies(plan: Plan, studies: list[str]) -> Selection:
    """Select all that studies make, whether or not a table shows it. Raises UserError where they have no run."""
    tables = [table for table in plan.tables.values() if table.study in studies]
    widths = {run: list(run.widths) for run in plan.runs.values() if run.study in studies}
    if not widths:
        raise UserError("params.yaml builds no run: name a table, as STUDY/TABLE, or a study under build")
    return Selection(tables, widths, jobs(plan, studies), plan, [RESULTS / study for study in studies])


def cells_of(plan: Plan, text: str) -> tuple[TablePlan, list[PlannedCell]]:
    """Return a table and its cells that `text` names and that runs make. Raises UserError as `select` does."""
    name, _, rest = text.partition(":")
    table = _table(plan, name, rest)
    index, width = _place(table, rest)
    chosen = [cell for cell in table.cells if cell.run and index in (None, cell.number) and width in (None, cell.width)]
    if not chosen:
        raise UserError(f"{text}: no run of params.yaml makes this cell")
    return table, chosen


def cell_address(table: TablePlan, cell: PlannedCell) -> str:
    """Return the address of a cell, as it is to be typed in a shell."""
    return shlex.quote(_address(_name(table), str(cell.number + 1), f"{cell.width:g}x"))


def _table(plan: Plan, name: str, place: str) -> TablePlan:
    everywhere, built = plan.tables.values(), [t for t in plan.tables.values() if t.study in plan.build]
    found = [t for t in everywhere if name == _name(t)] or [t for t in built if name == t.name]
    if not found:
        raise UserError(f"no table of {plan.file} is called {name!r}; {suggestion(name, [*map(_name, everywhere)])}")
    _require_one([_address(_name(table), place) for table in found], f"tables are called {name!r}")
    return found[0]


def _place(table: TablePlan, text: str) -> tuple[int | None, float | None]:
    """Parse ROW[:COLUMN], None for all; a label may contain colons."""
    if not text:
        return None, None
    labels = [row.label.lower() for row in table.table.rows]
    row, colon, column = text.rpartition(":")
    if not colon or text.lower() in labels:
        return _row(table, text), None
    try:
        return _row(table, row, column), _column(table, column)
    except UserError:
        if any(label.startswith(text.lower()) for label in labels):
            return _row(table, text), None
        raise


def _row(table: TablePlan, text: str, column: str = "") -> int:
    labels = [row.label for row in table.table.rows]
    found = _rows(labels, text)
    if not found:
        raise UserError(f"{_name(table)}: no row begins with {text!r}; it has: {labels}")
    addresses = [_address(_name(table), labels[index], column) for index in found]
    _require_one(addresses, f"rows of {_name(table)} begin with {text!r}")
    return found[0]


def _rows(labels: list[str], text: str) -> list[int]:
    """Find the rows that `text` names: by a label in full, else by a number, else by the beginning of a label."""
    numbered = list(enumerate(labels))
    return (
        [index for index, label in numbered if label == text]
        or [index for index, label in numbered if label.lower() == text.lower()]
        or [index for index, _ in numbered if str(index + 1) == text]
        or [index for index, label in numbered if label.lower().startswith(text.lower())]
    )


def _column(table: TablePlan, text: str) -> float:
    found = [width for width in table.widths if text.removesuffix("x") in (str(width), f"{width:g}")]
    if not found:
        widths = ", ".join(f"{width:g}x" for width in table.widths)
        raise UserError(f"{_name(table)}: no column is called {text!r}; it has: {widths}")
    return found[0]


def _require_one(addresses: list[str], what: str) -> None:
    """Raise UserError where there are several addresses, with each as it is to be typed in a shell."""
    if len(addresses) > 1:
        more = f" or {len(addresses) - MAX_LISTED} more" if len(addresses) > MAX_LISTED else ""
        raise UserError(f"{len(addresses)} {what}; type {' or '.join(map(shlex.quote, addresses[:MAX_LISTED]))}{more}")


def _name(table: TablePlan) -> str:
    return f"{table.study}/{table.name}"


def _address(*parts: str) -> str:
    return ":".join(part for part in parts if part)
