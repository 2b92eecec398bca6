"""The record of a table (JSON): for each cell its values and the files that they come from."""

from pathlib import Path
from typing import Any

from us3l.pipeline.identity import fingerprint
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.requalification import requalification
from us3l.pipeline.tables.cells import Cell, Records
from us3l.pipeline.tables.formats import caption

LONG = ("epochs", "networks", "predictions", "probe")  # keys of records


class ReadSeals:
    """The seals of records that have been read. See `us3l.pipeline.plan.job.Seals`."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def data(self, folder: Path) -> Any:
        raise NotImplementedError("a table is made from records alone")

    weights = data

    def record(self, path: Path) -> Any:
        return self.records[path]["seal"]


def table_record(job: TableJob, cells: list[Cell]) -> dict[str, Any]:
    """Return the table's record: for every cell its values and source files; `records` has the content of these."""
    table = job.table
    records = {path: record for cell in cells for path, record in cell.records.items()}
    jobs = _jobs(cells)
    [identity] = job.identities(ReadSeals(records)).values()
    return {
        "title": table.table.title,
        "caption": caption(table, cells),
        "fingerprint": fingerprint(identity),
        **identity,
        **_hours(records),
        "cells": [_cell_record(cell, table.table.shows_published) for cell in cells],
        "records": {str(path): _summary(record) | _requalified(jobs[path]) for path, record in sorted(records.items())},
    }


def _jobs(cells: list[Cell]) -> dict[Path, RunStage]:
    """Return the jobs that wrote the records of cells, by the record."""
    found: dict[Path, RunStage] = {}
    for cell in cells:
        for evaluation in cell.evaluations:
            if cell.place.run:
                found |= cell.place.run.lineage(evaluation.seed, cell.place.width)
    return found


def _requalified(job: RunStage) -> dict[str, Any]:
    """Describe the probe that found today's code equal to that of a record; empty where it is the same code."""
    found = requalification(job)
    if found is None:
        return {}
    return {"requalified": {key: found[key] for key in ("promise", "largest_difference", "finished", "git")}}


def _cell_record(cell: Cell, shows_published: bool) -> dict[str, Any]:
    known = cell.place.row.published.get(cell.place.width)
    return {
        "row": cell.place.row.label,
        "width": cell.place.width,
        "mean": cell.mean,
        "ci95": cell.ci95,
        "wilson": cell.wilson,
        "n": len(cell.values),
        "planned": cell.planned,
        "values": cell.values,
        **({"published": known.model_dump() if known else None} if shows_published else {}),
        **_hours(cell.records),
        "sources": [
            {"seed": each.seed, "top1": each.top1, "files": [str(path) for path in each.records]}
            for each in cell.evaluations
        ],
    }


def _hours(records: Records) -> dict[str, float]:
    """Sum the wall-clock hours of computing and the hours on GPUs in the records."""
    hours = sum(record["seconds"] for record in records.values()) / 3600
    return {"hours": round(hours, 6), "gpu_hours": round(sum(record["gpu_hours"] for record in records.values()), 6)}


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    """Shorten a record: leave out its epochs, networks, predictions and probe, and hash its code."""
    kept = {key: value for key, value in record.items() if key not in LONG}
    return kept | {"code": fingerprint(record["code"])}
