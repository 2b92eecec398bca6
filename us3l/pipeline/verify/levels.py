"""`us3l verify`: numbers derived again, one level after another; each verdict names the promise that it checked.

0 the tables' text from the evaluations; 1 every file against its seal, the params, the code and dvc.lock; 2 the
evaluations from the stored checkpoints; 3 the checkpoints from the params. Levels 0 and 1 need no PyTorch.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from us3l.params.sampling import width_label
from us3l.pipeline.dvc import locked_entries
from us3l.pipeline.dvc_file import listed_stages
from us3l.pipeline.identity import differences
from us3l.pipeline.integrity import damage, wrong_texts
from us3l.pipeline.lineage import Change, changes
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.pipeline.tables.cells import read_cells
from us3l.pipeline.verify.rederive import Rederived, rederive
from us3l.pipeline.verify.selection import Selection
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, read_weights

SHOWN = 20  # findings of one verdict


@dataclass(frozen=True)
class Verdict:
    """What was derived again and compared, under which promise, and what did not hold."""

    compared: str
    promise: str
    wrong: list[str] = field(default_factory=list)


Level = Callable[[Selection], Iterable[Verdict]]


def verify(selection: Selection, deepest: int) -> bool:
    """Check the levels up to `deepest` and print their verdicts; whether all of them hold."""
    holds = True
    for number, level in enumerate(LEVELS[: deepest + 1]):
        start = time.monotonic()
        for verdict in level(selection):
            seconds, start = time.monotonic() - start, time.monotonic()
            said = f"{len(verdict.wrong)} DIFFER" if verdict.wrong else "holds"
            print(f"level {number}  {said}  {verdict.promise}: {verdict.compared}, {seconds:.1f} s")
            for line in verdict.wrong[:SHOWN]:
                print(f"         {line}")
            if len(verdict.wrong) > SHOWN:
                print(f"         and {len(verdict.wrong) - SHOWN} more")
            holds &= not verdict.wrong
    return holds


def texts_from_evaluations(selection: Selection) -> list[Verdict]:
    """Whole tables, whatever cells are selected: it takes no time."""
    wrong = [line for table in selection.tables for line in _wrong_in_table(table)]
    return [Verdict(f"tables from their evaluations ({len(selection.tables)})", "bitwise", wrong)]


def _wrong_in_table(table: TablePlan) -> list[str]:
    from us3l.pipeline.tables.record import table_record  # which brings pandas

    job = TableJob(table)
    if missing := [path for path in job.outputs if not path.is_file()]:
        return [f"{path}: absent; `us3l {job.command}` writes it" for path in missing]
    try:
        cells, recorded = read_cells(table), read_record(job.record)
    except UserError as error:
        return [str(error)]
    wrong = list(wrong_texts(table, cells).values())
    for key, is_, should in differences(_by_cell(recorded), _by_cell(table_record(job, cells))):
        wrong.append(f"{job.record}: {key} is {is_}, and the evaluations give {should}")
    return wrong


def _by_cell(record: dict[str, Any]) -> dict[str, Any]:
    """What a table's record says of its cells and of the files that they were made from, by their names."""
    cells = {f"{cell['row']} at {cell['width']:g}x": cell for cell in record["cells"]}
    return {"cells": cells, "records": record["records"]}


def files_as_recorded(selection: Selection) -> Iterator[Verdict]:
    """Each file whole, and made by today's params and code from the files that are there; then DVC's opinion."""
    wrong = [line for job in selection.jobs for line in _wrong_in_job(job)]
    files = sum(len(job.outputs) for job in selection.jobs)
    yield Verdict(f"files against seals, params, code and inputs ({files})", "bitwise", wrong)
    mine = {job.dvc_stage for job in selection.jobs}
    locked = mine & locked_entries().keys()
    if locked:
        yield Verdict(f"stages against dvc.lock ({len(locked)})", "bitwise", _wrong_for_dvc(locked))
    if locked < mine:
        before = "`us3l dvc` with the study under build, then " if mine - locked - listed_stages() else ""
        lacks = f"dvc.lock lacks {len(mine - locked)} stages; to record them run {before}`us3l commit`"
        print(f"level 1  not checked: {lacks}")


def _wrong_in_job(job: Job) -> list[str]:
    damaged = damage(job)
    wrong = [*damaged.values(), *_of_another_run(job, damaged)]
    for path, changed in changes(job).items():
        if path not in damaged:
            wrong += [_say(path, change) for change in changed]
    return wrong


def _say(path: Path, change: Change) -> str:
    what, was, now = change
    return f"{path}: {now}" if what == str(path) else f"{path}: {what} was {was} and is {now}"


def _of_another_run(job: Job, damaged: dict[Path, str]) -> list[str]:
    """Weights that are whole, but not those that the job's record tells of."""
    if not isinstance(job, RunStage) or job.stage not in ("pretrain", "calibrate") or damaged or not job.done:
        return []
    record, run = read_record(job.record), job.run
    if job.stage == "pretrain":
        sealed = {run.checkpoint(job.seed): record["checkpoint"]}
    else:
        sealed = {run.network(job.seed, width): record["networks"].get(width_label(width)) for width in run.widths}
    return [
        f"{path}: not the weights that {job.record} tells of"
        for path, seal in sealed.items()
        if read_weights(path)[1]["seal"] != seal
    ]


def _wrong_for_dvc(stages: set[str]) -> list[str]:
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True)
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
    """Calibrate and evaluate again, in a folder of its own."""
    return _verdicts(rederive(selection, "calibrate"), "within rounding", _rounding)


def checkpoints_from_params(selection: Selection) -> list[Verdict]:
    """Train again, in a folder of its own, and evaluate that."""
    return _verdicts(rederive(selection, "pretrain"), "statistical", _interval)


def _verdicts(again: list[Rederived], otherwise: str, close: Callable[[Rederived], str | None]) -> list[Verdict]:
    """Bitwise for what was made on a machine like this one, `close` for the rest."""
    same = [each for each in again if each.same_platform]
    other = [each for each in again if not each.same_platform and "top1" in each.made]
    verdicts = []
    if same:
        wrong = [said for each in same if (said := each.difference())]
        verdicts.append(Verdict(f"results that a machine like this one made ({len(same)})", "bitwise", wrong))
    if other:
        wrong = [said for each in other if (said := close(each))]
        verdicts.append(Verdict(f"accuracies that other hardware or versions made ({len(other)})", otherwise, wrong))
    return verdicts


ROUNDING = 0.5  # points of accuracy that other hardware's rounding may move, from the same weights


def _rounding(each: Rederived) -> str | None:
    made, again = each.made["top1"], each.again["top1"]
    if abs(made - again) > ROUNDING:
        return f"{each.path}: top-1 {made:.2f} was recorded, {again:.2f} came again, more than {ROUNDING} apart"
    return None


def _interval(each: Rederived) -> str | None:
    (low, high), again = each.made["interval"], each.again["top1"]
    if not low <= again <= high:
        return f"{each.path}: top-1 {again:.2f} came again, outside the recorded interval, {low:.2f} to {high:.2f}"
    return None


LEVELS: tuple[Level, ...] = (
    texts_from_evaluations,
    files_as_recorded,
    evaluations_from_checkpoints,
    checkpoints_from_params,
)
