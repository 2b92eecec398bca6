"""Damage: files that are no longer as the job that made them wrote them."""

from itertools import zip_longest
from pathlib import Path

from us3l.data.store import open_store
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.tables.cells import Cell
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, read_weights


def damage(job: Job) -> dict[Path, str]:
    """Return the job's files that are damaged, each with a sentence that says so; missing ones are none."""
    return {path: said for path in job.outputs if path.is_file() and (said := _damage(path))}


def _damage(path: Path) -> str | None:
    """What its seal tells; the arrays of a data set are sealed in its meta.json, the texts of a table not at all."""
    try:
        if path.suffix == ".safetensors":
            read_weights(path)
        elif path.name == "meta.json":
            open_store(path.parent)
        elif path.suffix == ".json":
            read_record(path)
    except UserError as error:
        return str(error)
    return None


def wrong_texts(table: TablePlan, cells: list[Cell]) -> dict[Path, str]:
    """Return the texts of a table that are not what its evaluations give, each with a sentence that says so."""
    from us3l.pipeline.tables.formats import texts  # which brings pandas

    found = {}
    for suffix, right in texts(table, cells).items():
        path = table.file(suffix)
        if path.is_file() and (difference := _first_difference(path.read_text(errors="replace"), right)):
            found[path] = f"{path}: {difference}"
    return found


def _first_difference(there: str, right: str) -> str | None:
    lines = zip_longest(there.split("\n"), right.split("\n"))
    for number, (is_, should) in enumerate(lines, 1):
        if is_ != should:
            return f"line {number} says {is_!r}, and the evaluations give {should!r}"
    return None
