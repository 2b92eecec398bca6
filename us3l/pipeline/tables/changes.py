"""What has changed since a table was written, in lines of a diff: the cells of each row, then settings and code."""

from typing import Any

from us3l.pipeline.identity import differences
from us3l.pipeline.lineage import NOT_MADE, Change, diff
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.tables.cells import read_cells

LONG = ("params.table.rows", "inputs.")  # the keys of a table's identity that tell less than its cells


def table_lines(job: TableJob, recorded: dict[str, Any], changed: list[Change]) -> list[str]:
    """Describe the changes of a table's record, those of its rows and inputs by the cells and rows that they change.

    Raises UserError for a damaged evaluation.
    """
    lines = _cell_lines(_recorded_cells(recorded), _present_cells(job))
    if not lines and any(key.startswith("inputs.") for key, _, _ in changed):
        lines = ["the evaluations were made again since; the numbers are the same"]
    rows = _row_changes(recorded["params"]["table"]["rows"], job.stage_params["table"]["rows"])
    others = [change for change in changed if not change[0].startswith(LONG)]
    return [*lines, *map(diff, [*rows, *others])]


def _cell_lines(made: dict[str, str], now: dict[str, str]) -> list[str]:
    """List the cells that differ; one that only one of the two tables has is one line."""
    sides = [(cell, sign, of.get(cell)) for cell in made | now for sign, of in (("-", made), ("+", now))]
    return [f"{sign}{cell}: {text}" for cell, sign, text in sides if text and made.get(cell) != now.get(cell)]


def _recorded_cells(record: dict[str, Any]) -> dict[str, str]:
    return {
        _cell(cell["row"], cell["width"]): _text(cell["mean"], cell["ci95"], cell["n"], cell["planned"])
        for cell in record["cells"]
    }


def _present_cells(job: TableJob) -> dict[str, str]:
    return {
        _cell(cell.place.row.label, cell.place.width): _text(cell.mean, cell.ci95, len(cell.values), cell.planned)
        for cell in read_cells(job.table)
    }


def _cell(label: str, width: float) -> str:
    return f"{label} at {width:g}x"


def _text(mean: float | None, ci95: float | None, n: int, planned: int) -> str:
    """Format a cell with more digits than the table has, so that every change shows; empty without a run."""
    if mean is None:
        return NOT_MADE if planned else ""
    return f"{mean:.4f}{'' if ci95 is None else f' ± {ci95:.4f}'} (n={n} of {planned})"


def _row_changes(made: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[Change]:
    """Return what differs in the rows that both tables have, and their order if that differs."""
    rows, rows_now = ({row["label"]: row for row in table} for table in (made, now))
    common, common_now = [label for label in rows if label in rows_now], [label for label in rows_now if label in rows]
    changed = [each for label in common for each in differences(rows[label], rows_now[label], label)]
    return changed + ([("rows", common, common_now)] if common != common_now else [])
