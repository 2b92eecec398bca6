"""The stage table: from evaluations to Markdown, CSV, LaTeX, HTML and JSON; without PyTorch."""

from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.requirements import require_network, require_params
from us3l.pipeline.tables.cells import Cell, read_cells
from us3l.pipeline.tables.formats import texts
from us3l.pipeline.tables.record import table_record
from us3l.utils.atomic import atomic_write
from us3l.utils.records import write_record


def write_table(job: TableJob) -> None:
    """Write the table as Markdown, CSV, LaTeX, HTML and, with the sources of every cell, JSON.

    Raises UserError where an evaluation, or a stage before it, was made with other params than the current ones.
    """
    cells = read_cells(job.table)
    for cell in cells:
        _require_current_params(cell)
    for suffix, text in texts(job.table, cells).items():
        with atomic_write(job.table.file(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_record(job.record, table_record(job, cells))


def _require_current_params(cell: Cell) -> None:
    if cell.place.run is None:
        return
    for evaluation in cell.evaluations:
        producers = cell.place.run.lineage(evaluation.seed, cell.place.width)
        for path, record in evaluation.records.items():
            producer = producers[path]
            require_params(path, record, producer.stage_params, f"run `us3l {producer.command}`")
            require_network(producer)
