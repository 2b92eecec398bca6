"""`us3l verify`: numbers derived again, level by level; each verdict says how exactly they must agree.

Level 0 derives the tables' text from the evaluations, 1 checks every file against its seal, the params, the code and
dvc.lock, 2 derives the evaluations from the stored checkpoints, 3 the checkpoints from the params. Levels 0 and 1 need
no PyTorch.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from us3l.pipeline.dvc import locked_entries
from us3l.pipeline.dvc_file import listed_stages
from us3l.pipeline.identity import differences
from us3l.pipeline.integrity import damaged_files, wrong_texts
from us3l.pipeline.lineage import Change, changes
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.pipeline.provenance import CIRCUMSTANCES
from us3l.pipeline.requalification import requalification
from us3l.pipeline.requalify import ProbedJob, Subject, compare, probe_all
from us3l.pipeline.tables.cells import Cell, Evaluation, read_cells
from us3l.pipeline.verify.rederive import Rederived, rederive
from us3l.pipeline.verify.selection import Selection
from us3l.utils.errors import UserError, in_one_line
from us3l.utils.records import read_record

SHOWN = 20  # differences of one verdict to print


@dataclass(frozen=True)
class Verdict:
    """A comparison, how exactly it must hold (bitwise, within rounding, statistical), what differs, and what may."""

    compared: str
    promise: str
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Level = Callable[[Selection], Iterable[Verdict]]


def verify(selection: Selection, deepest: int) -> bool:
    """Check the levels up to `deepest`, print their verdicts, and tell whether all of them hold."""
    holds = True
    for number, level in enumerate(LEVELS[: deepest + 1]):
        start = time.monotonic()
        for verdict in level(selection):
            seconds, start = time.monotonic() - start, time.monotonic()
            outcome = f"{len(verdict.wrong)} DIFFER" if verdict.wrong else "holds"
            print(f"level {number}  {outcome}  {verdict.promise}: {verdict.compared}, {seconds:.1f} s")
            for lines in (verdict.wrong, verdict.notes):
                _print_some(lines)
            holds &= not verdict.wrong
    return holds


def _print_some(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"         {in_one_line(line)}")
    if len(lines) > SHOWN:
        print(f"         and {len(lines) - SHOWN} more")


def texts_from_evaluations(selection: Selection) -> list[Verdict]:
    """Derive whole tables from their evaluations, whatever cells are selected: that takes no time."""
    compared = [_compare_table(table) for table in selection.tables]
    wrong, notes = [line for each, _ in compared for line in each], [line for _, each in compared for line in each]
    return [Verdict(f"tables from their evaluations ({len(selection.tables)})", "bitwise", wrong, notes)]


def _compare_table(table: TablePlan) -> tuple[list[str], list[str]]:
    """Return what is wrong with a table, and a note where its evaluations differ in their circumstances alone."""
    from us3l.pipeline.tables.record import table_record  # imports pandas

    job = TableJob(table)
    if missing := [path for path in job.outputs if not path.is_file()]:
        return [f"{path}: absent; `us3l {job.command}` writes it" for path in missing], []
    try:
        cells, recorded = read_cells(table), read_record(job.record)
    except UserError as error:
        return [str(error)], []
    made, now = _by_cell(recorded), _by_cell(table_record(job, cells))
    wrong = list(wrong_texts(table, _as_timed(cells, recorded["records"])).values())
    for key, value, expected in differences(_without_circumstances(made), _without_circumstances(now)):
        wrong.append(f"{job.record}: {key} is {value}, and the evaluations give {expected}")
    if made == now or wrong:
        return wrong, []
    return [], [f"{job.record}: the evaluations were made again since; the numbers are the same"]


def _as_timed(cells: list[Cell], recorded: dict[str, Any]) -> list[Cell]:
    """Give the records behind cells the circumstances that the table's record has: its texts may show their cost."""

    def timed(evaluation: Evaluation) -> Evaluation:
        records = {}
        for path, record in evaluation.records.items():
            of_table = recorded.get(str(path), {})
            records[path] = record | {key: of_table[key] for key in CIRCUMSTANCES if key in of_table}
        return replace(evaluation, records=records)

    return [replace(cell, evaluations=[timed(each) for each in cell.evaluations]) for cell in cells]


def _by_cell(record: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a table's record by row and width, and the records that they were made from."""
    cells = {f"{cell['row']} at {cell['width']:g}x": cell for cell in record["cells"]}
    return {"cells": cells, "records": record["records"]}


def _without_circumstances(by_cell: dict[str, Any]) -> dict[str, Any]:
    """Leave out the circumstances of records, with the seals and the hours of cells, which follow from these."""
    left_out = {*CIRCUMSTANCES, "seal", "hours", "requalified"}
    return {
        kind: {name: {key: value for key, value in entry.items() if key not in left_out} for name, entry in of.items()}
        for kind, of in by_cell.items()
    }


def files_as_recorded(selection: Selection) -> Iterator[Verdict]:
    """Check that each file is intact, and made from the current params, code and inputs; then compare with dvc.lock."""
    wrong = [line for job in selection.jobs for line in _wrong_in_job(job)]
    files = sum(len(job.outputs) for job in selection.jobs)
    notes = [_about_requalification(job, found) for job, found in _requalified(selection).items()]
    yield Verdict(f"files against seals, params, code and inputs ({files})", "bitwise", wrong, notes)
    stages = {job.dvc_stage for job in selection.jobs}
    locked = stages & locked_entries().keys()
    if locked:
        yield Verdict(f"stages against dvc.lock ({len(locked)})", "bitwise", _wrong_for_dvc(locked))
    if locked < stages:
        before = "`us3l dvc` with the study under build, then " if stages - locked - listed_stages() else ""
        lacks = f"dvc.lock lacks {len(stages - locked)} stages; to record them run {before}`us3l commit`"
        print(f"level 1  not checked: {lacks}")


def _requalified(selection: Selection) -> dict[ProbedJob, dict[str, Any]]:
    jobs = [job for job in selection.jobs if isinstance(job, ProbedJob)]
    return {job: found for job in jobs if (found := requalification(job))}


def _about_requalification(job: ProbedJob, found: dict[str, Any]) -> str:
    commit = f" at {found['git']['commit'][:10]}" if found["git"] else ""
    return f"us3l {job.command}: code changed since, requalified by probe ({found['promise']}){commit}"


def _wrong_in_job(job: Job) -> list[str]:
    damaged = damaged_files(job)
    wrong = [*damaged.values()]
    for path, changed in changes(job).items():
        if path not in damaged:
            wrong += [_sentence(path, change) for change in changed]
    return wrong


def _sentence(path: Path, change: Change) -> str:
    what, was, now = change
    return f"{path}: {now}" if what == str(path) else f"{path}: {what} was {was} and is {now}"


def _wrong_for_dvc(stages: set[str]) -> list[str]:
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, encoding="utf-8")
    if status.returncode:
        return [f"dvc status: {' '.join(status.stderr.split())}"]
    return [
        f"{stage}: {what}: {path} {state}"
        for stage, reports in json.loads(status.stdout).items()
        if stage in stages
        for report in reports
        for what, paths in (report.items() if isinstance(report, dict) else [(report, {"": ""})])
        for path, state in paths.items()
    ]


def evaluations_from_checkpoints(selection: Selection) -> list[Verdict]:
    """Calibrate and evaluate again, in a separate folder, and run the probes of requalified results again."""
    return [*_verdicts(rederive(selection, "calibrate"), "within rounding", _rounding), *_probed_again(selection)]


def _probed_again(selection: Selection) -> list[Verdict]:
    """Hold the probes of requalified results against those that their records have, whatever the requalification."""
    subjects = [Subject(job, read_record(job.record)) for job in _requalified(selection)]
    outcomes = zip(subjects, probe_all(subjects), strict=True)
    findings = [each if isinstance(each, UserError) else compare(subject, each) for subject, each in outcomes]
    wrong = [str(each) for each in findings if isinstance(each, UserError) or not each.is_equal]
    return [Verdict(f"probes of requalified results ({len(subjects)})", "within rounding", wrong)] if subjects else []


def checkpoints_from_params(selection: Selection) -> list[Verdict]:
    """Train and evaluate again, in a separate folder."""
    return _verdicts(rederive(selection, "pretrain"), "statistical", _interval)


def _verdicts(results: list[Rederived], promise: str, difference: Callable[[Rederived], str | None]) -> list[Verdict]:
    """Compare bitwise what was made on a machine like this one, and accuracies from other machines by `difference`."""
    same = [each for each in results if each.same_platform]
    other = [each for each in results if not each.same_platform and "top1" in each.recorded]
    verdicts = []
    if same:
        wrong = [line for each in same if (line := each.difference())]
        verdicts.append(Verdict(f"results that a machine like this one made ({len(same)})", "bitwise", wrong))
    if other:
        wrong = [line for each in other if (line := difference(each))]
        verdicts.append(Verdict(f"accuracies that other hardware or versions made ({len(other)})", promise, wrong))
    return verdicts


ROUNDING = 0.5  # percentage points by which other hardware's rounding may change an accuracy, from the same weights


def _rounding(each: Rederived) -> str | None:
    recorded, again = each.recorded["top1"], each.again["top1"]
    if abs(recorded - again) > ROUNDING:
        return f"{each.path}: top-1 {recorded:.2f} was recorded, {again:.2f} came again, more than {ROUNDING} apart"
    return None


def _interval(each: Rederived) -> str | None:
    (low, high), again = each.recorded["interval"], each.again["top1"]
    if not low <= again <= high:
        return f"{each.path}: top-1 {again:.2f} came again, outside the recorded interval, {low:.2f} to {high:.2f}"
    return None


LEVELS: tuple[Level, ...] = (
    texts_from_evaluations,
    files_as_recorded,
    evaluations_from_checkpoints,
    checkpoints_from_params,
)
