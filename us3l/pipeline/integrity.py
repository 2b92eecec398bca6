"""Damaged files: those that have changed since their job wrote them."""

import hashlib
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from pathlib import Path

from us3l.data.store import open_store
from us3l.pipeline.plan.export import ExportJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.pipeline.seal_cache import checked
from us3l.pipeline.tables.cells import Cell, read_cells
from us3l.utils.errors import UserError
from us3l.utils.records import CHANGED, read_record, read_weights


def damaged_files(job: Job) -> dict[Path, str]:
    """Return the job's damaged files, each with a sentence that describes the damage; missing files are left out.

    The seal of a data set's arrays is in its meta.json, those of exported files in their record; the texts of a table
    have none.
    """
    if isinstance(job, ExportJob):
        return _damaged_exports(job)
    sealed = [path for path in job.outputs if path.is_file() and path.suffix in (".safetensors", ".json")]
    return _damaged(sealed, lambda path: _seal(path) if _is_record(path) else checked_seal(path))


def damaged_since(job: Job) -> dict[Path, str]:
    """Return damaged weights, arrays and exports; what has not changed since it was last checked is not read again."""
    if isinstance(job, ExportJob):
        return _damaged_exports(job)
    large = [path for path in job.outputs if path.suffix == ".safetensors" or (path.name == "meta.json" and job.done)]
    return _damaged([path for path in large if path.is_file()], checked_seal)


def _damaged_exports(job: ExportJob) -> dict[Path, str]:
    """Return the exported files that are others than the record says; the record where it is damaged itself."""
    if not job.record.is_file():
        return {}
    try:
        sealed = read_record(job.record).get("files", {})
    except UserError as error:
        return {job.record: str(error)}
    present = {path: str(path.relative_to(job.folder)) for path in job.export.files(job.seed) if path.is_file()}
    return {
        path: f"{path}: {CHANGED}"
        for path, name in present.items()
        if checked([path], partial(seal_of_file, path)) != sealed.get(name)
    }


def seal_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_record(path: Path) -> bool:
    return path.suffix == ".json" and path.name != "meta.json"


def _damaged(files: list[Path], read_seal: Callable[[Path], str]) -> dict[Path, str]:
    found = {}
    for path in files:
        try:
            read_seal(path)
        except UserError as error:
            found[path] = str(error)
    return found


def checked_seal(path: Path) -> str:
    """Return the seal of weights or arrays, read again only after a change. Raises UserError where they are damaged."""
    files = [path, *sorted(path.parent.glob("*.npy"))] if path.name == "meta.json" else [path]
    return checked(files, partial(_seal, path))


def _seal(path: Path) -> str:
    """Read a file to its end, and return its seal. Raises UserError where it is damaged."""
    if path.suffix == ".safetensors":
        return str(read_weights(path)[1]["seal"])
    return open_store(path.parent).sha256 if path.name == "meta.json" else str(read_record(path)["seal"])


def edited_texts(job: Job) -> dict[Path, str]:
    """Return the texts of a table that its evaluations do not give; none for another job.

    Raises UserError for a damaged evaluation.
    """
    return wrong_texts(job.table, read_cells(job.table)) if isinstance(job, TableJob) else {}


def wrong_texts(table: TablePlan, cells: list[Cell]) -> dict[Path, str]:
    """Return the texts of a table that differ from its evaluations, each with a sentence that describes how."""
    from us3l.pipeline.tables.formats import texts  # imports pandas

    found = {}
    for suffix, expected in texts(table, cells).items():
        path = table.file(suffix)
        if path.is_file() and (difference := _first_difference(path.read_text("utf-8", "replace"), expected)):
            found[path] = f"{path}: {difference}"
    return found


def _first_difference(text: str, expected_text: str) -> str | None:
    lines = zip_longest(text.split("\n"), expected_text.split("\n"))
    for number, (line, expected) in enumerate(lines, 1):
        if line != expected:
            return f"line {number} says {line!r}, and the evaluations give {expected!r}"
    return None
