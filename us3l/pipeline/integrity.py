"""Damaged files: those that have changed since their job wrote them."""

from functools import partial
from itertools import zip_longest
from pathlib import Path

from us3l.data.store import open_store
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.pipeline.seal_cache import checked
from us3l.pipeline.tables.cells import Cell, read_cells
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, read_weights


def damaged_files(job: Job) -> dict[Path, str]:
    """Return the job's damaged files, each with a sentence that describes the damage; missing files are left out."""
    return {path: problem for path in job.outputs if path.is_file() and (problem := _damage(path))}


def damaged_since(job: Job) -> dict[Path, str]:
    """Return the same without reading a large file again that has not changed since it was last checked."""
    found = {}
    for path in job.outputs:
        try:
            if path.suffix == ".safetensors" and path.is_file():
                checked_weights(path)
            elif path.name == "meta.json" and job.done:
                files = [path, *(each for each in job.outputs if each.suffix == ".npy")]
                checked(files, partial(_store_seal, path.parent))
        except UserError as error:
            found[path] = str(error)
    return found


def _store_seal(folder: Path) -> str:
    return open_store(folder).sha256


def checked_weights(path: Path) -> str:
    """Return the seal of weights, read again only after a change. Raises UserError where they are damaged."""
    return checked([path], lambda: str(read_weights(path)[1]["seal"]))


def edited_texts(job: Job) -> dict[Path, str]:
    """Return the texts of a table that its evaluations do not give; none for another job.

    Raises UserError for a damaged evaluation.
    """
    return wrong_texts(job.table, read_cells(job.table)) if isinstance(job, TableJob) else {}


def _damage(path: Path) -> str | None:
    """Check a file's seal. The seal of a data set's arrays is in its meta.json; the texts of a table have none."""
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
    """Return the texts of a table that differ from its evaluations, each with a sentence that describes how."""
    from us3l.pipeline.tables.formats import texts  # imports pandas

    found = {}
    for suffix, expected in texts(table, cells).items():
        path = table.file(suffix)
        if path.is_file() and (difference := _first_difference(path.read_text(errors="replace"), expected)):
            found[path] = f"{path}: {difference}"
    return found


def _first_difference(text: str, expected_text: str) -> str | None:
    lines = zip_longest(text.split("\n"), expected_text.split("\n"))
    for number, (line, expected) in enumerate(lines, 1):
        if line != expected:
            return f"line {number} says {line!r}, and the evaluations give {expected!r}"
    return None
