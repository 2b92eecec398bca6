"""A table as a record (JSON): for each cell its values and the files that they came from."""

from typing import Any

from us3l.params.study import Row
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.provenance import fingerprint, identify
from us3l.pipeline.tables.cells import Records, Rows
from us3l.pipeline.tables.formats import caption


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
