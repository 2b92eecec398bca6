"""A table as a record (JSON): for each cell its values and the files that they came from."""

from pathlib import Path
from typing import Any

from us3l.pipeline.identity import fingerprint
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.tables.cells import Cell, Records
from us3l.pipeline.tables.formats import caption


class ReadSeals:
    """Seals of records that have been read. See `us3l.pipeline.plan.job.Seals`."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def data(self, folder: Path) -> Any:
        raise NotImplementedError("a table is made from records alone")

    weights = data

    def record(self, path: Path) -> Any:
        return self.records[path]["seal"]


def table_record(job: TableJob, cells: list[Cell]) -> dict[str, Any]:
    """Return the table with, for every cell, its values and the files they came from; `records` has what those say."""
    table = job.table
    records = {path: record for cell in cells for path, record in cell.records.items()}
    [identity] = job.identities(ReadSeals(records)).values()
    return {
        "title": table.table.title,
        "caption": caption(table, cells),
        "fingerprint": fingerprint(identity),
        **identity,
        **_compute(records),
        "cells": [_about(cell, table.table.shows_published) for cell in cells],
        "records": {str(path): _in_short(record) for path, record in sorted(records.items())},
    }


def _about(cell: Cell, shows_published: bool) -> dict[str, Any]:
    known = cell.place.row.published.get(cell.place.width)
    return {
        "row": cell.place.row.label,
        "width": cell.place.width,
        "mean": cell.mean,
        "ci95": cell.ci95,
        "n": len(cell.values),
        "planned": cell.planned,
        "values": cell.values,
        **({"published": known.model_dump() if known else None} if shows_published else {}),
        **_compute(cell.records),
        "sources": [
            {"seed": each.seed, "top1": each.top1, "files": [str(path) for path in each.records]}
            for each in cell.evaluations
        ],
    }


def _compute(records: Records) -> dict[str, float]:
    """Wall-clock hours of computing that the records tell of, and hours on GPUs."""
    hours = sum(record["seconds"] for record in records.values()) / 3600
    return {"hours": round(hours, 6), "gpu_hours": round(sum(record["gpu_hours"] for record in records.values()), 6)}


def _in_short(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its course and its products; its code as one hash."""
    kept = {key: value for key, value in record.items() if key not in ("epochs", "networks")}
    return kept | {"code": fingerprint(record["code"])}
