"""Level 0: the texts and the record of each table, derived again from its evaluations; without PyTorch."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from us3l.pipeline.forms import CIRCUMSTANCES, FORMS, Circumstances, is_as_written, wrong_form
from us3l.pipeline.identity import differences, fingerprint
from us3l.pipeline.integrity import wrong_texts
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.pipeline.requalification import requalification_file
from us3l.pipeline.tables.cells import Cell, Evaluation, read_cells
from us3l.pipeline.verify.selection import Selection
from us3l.pipeline.verify.verdict import Verdict
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

Told = dict[str, dict[str, Any]]  # what the record of a table tells of the records behind it, by their path


def texts_from_evaluations(selection: Selection) -> Iterator[Verdict]:
    """Derive whole tables from their evaluations, whatever cells are selected: that takes no time."""
    compared = [_compare_table(table) for table in selection.tables]
    wrong, notes = [line for each, _ in compared for line in each], [line for _, each in compared for line in each]
    yield Verdict(f"tables from their evaluations ({len(selection.tables)})", "bitwise", wrong, notes)


def _compare_table(table: TablePlan) -> tuple[list[str], list[str]]:
    """Return what is wrong with a table, and a note where its evaluations differ in their circumstances alone."""
    job = TableJob(table)
    if missing := [path for path in job.outputs if not path.is_file()]:
        return [f"{path}: absent; `us3l {job.command}` writes it" for path in missing], []
    behind = _jobs_behind(table)
    if wrong := [line for path, of in behind.items() for line in wrong_record(path, of)]:
        return wrong, []
    try:
        cells, recorded = read_cells(table), read_record(job.record)
    except UserError as error:
        return [str(error)], []
    if not is_as_written(job.record):
        return [f"{job.record}: not as us3l writes it; `us3l {job.command}` writes it again"], []
    told = _told(recorded)
    then = [_as_told(cell, told) for cell in cells]
    wrong = list(wrong_texts(table, then).values())
    for key, value, expected in differences(_named(recorded), _named(_expected(job, then, recorded, told, behind))):
        wrong.append(f"{job.record}: {key} is {value}, and the evaluations give {expected}")
    is_new = any(now.records != before.records for now, before in zip(cells, then, strict=True))
    note = f"{job.record}: the evaluations were made again since; the numbers are the same"
    return wrong, [note] if is_new and not wrong else []


def wrong_record(path: Path, job: RunStage) -> list[str]:
    """Describe what is wrong with the record of a job: its seal, its text or its form."""
    try:
        return wrong_form(path, read_record(path), FORMS[job.stage])
    except UserError as error:
        return [str(error)]


def _jobs_behind(table: TablePlan) -> dict[Path, RunStage]:
    """Return the jobs of the present records that a table rests on, by the record."""
    return {
        path: job
        for cell in table.cells
        if cell.run
        for seed in cell.run.seeds
        for path, job in cell.run.lineage(seed, cell.width).items()
        if path.is_file()
    }


def _told(recorded: dict[str, Any]) -> Told:
    records = recorded.get("records")
    entries = records.items() if isinstance(records, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, dict)}


def _as_told(cell: Cell, told: Told) -> Cell:
    """Give records that were made again since the circumstances and seals that they had when the table was written."""

    def as_told(evaluation: Evaluation) -> Evaluation:
        records = {
            path: record | _circumstances(record, told.get(str(path), {}))
            for path, record in evaluation.records.items()
        }
        return replace(evaluation, records=records)

    return replace(cell, evaluations=[as_told(each) for each in cell.evaluations])


def _circumstances(record: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return circumstances and seal of a table's entry of a record; nothing where the record is the same file."""
    if entry.get("seal") in (None, record["seal"]):
        return {}
    found = {key: entry[key] for key in CIRCUMSTANCES if key in entry and key != "requalified"}
    try:
        Circumstances.model_validate(found)
    except ValidationError:
        return {}
    return found | {"seal": entry["seal"]}


def _expected(
    job: TableJob, cells: list[Cell], recorded: dict[str, Any], told: Told, behind: dict[Path, RunStage]
) -> dict[str, Any]:
    """Return the record that the table should have, but for its code, which level 1 compares."""
    from us3l.pipeline.tables.record import table_record  # imports pandas

    expected = json.loads(json.dumps(table_record(job, cells))) | {"code": recorded.get("code")}
    identity = job.identify(inputs=expected["inputs"]) | {"code": expected["code"]}
    for path, entry in expected["records"].items():
        if "requalified" in told.get(path, {}) and "requalified" not in entry:
            entry |= _past_requalification(behind[Path(path)], told[path]["requalified"])
    return expected | {"fingerprint": fingerprint(identity), "seal": recorded["seal"]}


def _past_requalification(job: RunStage, told: Any) -> dict[str, Any]:
    """Return what a table tells of a requalification that counts no longer, if its file is still there."""
    try:
        found = read_record(requalification_file(job))
    except UserError:
        return {}
    is_known = isinstance(told, dict) and all(found.get(key) == value for key, value in told.items())
    return {"requalified": told} if is_known else {}


def _named(record: dict[str, Any]) -> dict[str, Any]:
    """Name the cells of a table's record by row and width, and by their place where they are there twice."""
    cells = record.get("cells")
    named: dict[str, Any] = {}
    if not (isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)):
        return record
    for cell in cells:
        width = cell.get("width")
        name = f"{cell.get('row')} at {f'{width:g}' if isinstance(width, float) else width}x"
        named[name if name not in named else f"{name}, again, as number {len(named) + 1}"] = cell
    return record | {"cells": named, "order of cells": [*named]}
