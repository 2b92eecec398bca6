"""`us3l plan`: what params.yaml makes and which of it is there, as a table in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from us3l.errors import UserError
from us3l.plan import Plan

STAGES = ("pretrain", "calibrate", "linear")


def show(plan: Plan, study: str | None) -> None:
    """List the runs of `study`, or of the studies to build; a cell says how many files are there of how many."""
    known = {name for name, _ in plan.runs}
    if study is not None and study not in known:
        raise UserError(f"params.yaml has no study {study!r}; it has: {', '.join(sorted(known))}")
    shown = [study] if study else plan.build
    table = Table(box=None, header_style="bold")
    for title in ("study", "run", "dataset", "backbone", "widths", "seeds", *STAGES):
        table.add_column(title, no_wrap=True)
    for run in (run for run in plan.runs.values() if run.study in shown):
        widths = " ".join(f"{width:g}" for width in run.widths)
        done = [_done(run.files(stage)) for stage in STAGES]
        table.add_row(run.study, run.name, run.data.name, run.run.backbone, widths, str(len(run.seeds)), *done)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table, crop=False)
    for each in (each for each in plan.tables.values() if each.study in shown):
        console.print(f"table {each.file('md')}: {_done(each.files)} files, {_done(each.evaluations)} evaluations")


def _done(files: list[Path]) -> str:
    return f"{sum(path.is_file() for path in files)}/{len(files)}"
