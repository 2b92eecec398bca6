"""`us3l plan`: what params.yaml makes and which of it is there, as a table in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from us3l.errors import UserError
from us3l.plan import Plan

STAGES = ("pretrain", "calibrate", "linear")
UNLIMITED = 10_000  # columns: a terminal wraps long lines, and nothing is cut off


def show(plan: Plan, study: str | None) -> None:
    """List the runs of `study`, or of the studies to build; a cell says how many files are there of how many."""
    known = {name for name, _ in plan.runs}
    if study is not None and study not in known:
        raise UserError(f"params.yaml has no study {study!r}; it has: {', '.join(sorted(known))}")
    shown = [study] if study else plan.build
    table = Table(box=None, header_style="bold")
    for title in ("study", "run", "dataset", "backbone", "widths", "seeds", *STAGES):
        table.add_column(title, no_wrap=True)
    runs = [run for run in plan.runs.values() if run.study in shown]
    for run in runs:
        widths = " ".join(f"{width:g}" for width in run.widths)
        done = [_done(run.files(stage)) for stage in STAGES]
        table.add_row(run.study, run.name, run.data.name, run.run.backbone, widths, str(len(run.seeds)), *done)
    console = Console(width=UNLIMITED, highlight=False)
    console.print(table)
    for data in {run.data.name: run.data for run in runs}.values():
        console.print(f"data {data.folder}: {_done(data.files)} files")
    for each in (each for each in plan.tables.values() if each.study in shown):
        console.print(f"table {each.file('md')}: {_done(each.files)} files, {_done(each.evaluations)} evaluations")


def _done(files: list[Path]) -> str:
    return f"{sum(path.is_file() for path in files)}/{len(files)}"
