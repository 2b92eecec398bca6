"""Tables: rows are runs, columns are widths, a cell is the mean over seeds with its 95% interval.

A cell without evaluations is empty and marked; one with fewer seeds than planned says so. Nothing here needs PyTorch.
"""

from typing import Any

from us3l.files import replacing
from us3l.params.studies import Row
from us3l.plan import TablePlan
from us3l.provenance import fingerprint, identify, require_params
from us3l.records import write_record
from us3l.rows import Records, Rows, read_rows
from us3l.typeset import caption, texts


def write_table(plan: TablePlan) -> None:
    """Write the table as Markdown, CSV, LaTeX and, with the sources of every cell, JSON.

    Raises UserError where an evaluation, or what it came from, was made with other params than those of today.
    """
    rows = read_rows(plan)
    _require_todays_params(plan, rows)
    for suffix, text in texts(plan, rows).items():
        with replacing(plan.file(suffix)) as temporary:
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


def with_sources(plan: TablePlan, rows: Rows) -> dict[str, Any]:
    """The table with, for every cell, its values and the files they came from; `records` has what those say."""
    records = {path: record for line in rows for cell in line for path, record in cell.records.items()}
    seals = {str(path): record["seal"] for path, record in sorted(records.items())}
    identity = identify("table", plan.recipe, made_from=seals)
    cells = [
        {
            "row": row.label,
            "width": width,
            "mean": cell.mean,
            "half_width": cell.half_width,
            "n": len(cell.values),
            "planned": cell.planned,
            "values": cell.values,
            **(_published(row, width) if plan.table.shows_published else {}),
            **_compute(cell.records),
            "sources": [
                {"seed": source.seed, "top1": source.top1, "files": [str(path) for path in source.records]}
                for source in cell.sources
            ],
        }
        for row, line in zip(plan.table.rows, rows, strict=True)
        for width, cell in zip(plan.widths, line, strict=True)
    ]
    return {
        "title": plan.table.title,
        "caption": caption(plan, rows),
        "fingerprint": fingerprint(identity),
        **identity,
        **_compute(records),
        "cells": cells,
        "records": {str(path): _in_short(record) for path, record in sorted(records.items())},
    }


def _published(row: Row, width: float) -> dict[str, Any]:
    known = row.published.get(width)
    return {"published": known.model_dump() if known else None}


def _compute(records: Records) -> dict[str, float]:
    """What it took to make them: wall-clock hours of computing, and hours on GPUs."""
    hours = sum(record["seconds"] for record in records.values()) / 3600
    return {"hours": round(hours, 6), "gpu_hours": round(sum(record["gpu_hours"] for record in records.values()), 6)}


def _in_short(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its course and its products; its code as one hash."""
    kept = {key: value for key, value in record.items() if key not in ("epochs", "networks")}
    return kept | {"code": fingerprint(record["code"])}
