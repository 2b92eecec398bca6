"""The stage table: from evaluations to Markdown, CSV, LaTeX and JSON. Nothing here needs PyTorch."""

from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.provenance import require_params
from us3l.pipeline.tables.cells import Rows, read_rows
from us3l.pipeline.tables.formats import texts
from us3l.pipeline.tables.record import with_sources
from us3l.utils.atomic import atomic_write
from us3l.utils.records import write_record


def write_table(plan: TablePlan) -> None:
    """Write the table as Markdown, CSV, LaTeX and, with the sources of every cell, JSON.

    Raises UserError where an evaluation, or what it came from, was made with other params than those of today.
    """
    rows = read_rows(plan)
    _require_todays_params(plan, rows)
    for suffix, text in texts(plan, rows).items():
        with atomic_write(plan.file(suffix)) as temporary:
            temporary.write_text(text)
    write_record(plan.file("json"), with_sources(plan, rows))


def _require_todays_params(plan: TablePlan, rows: Rows) -> None:
    cells = [cell for line in rows for cell in line]
    for (_, width, run), cell in zip(plan.cells(), cells, strict=True):
        for source in cell.sources:
            makers = run.sources(source.seed, width)
            for path, record in source.records.items():
                maker, stage = makers[path]
                again = f"run `us3l {stage} {maker.study} {maker.name} {source.seed}`"
                require_params(path, record, maker.recipe(stage), again)
