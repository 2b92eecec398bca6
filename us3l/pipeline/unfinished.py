"""Unfinished trainings whose code was edited: after a requalification they continue with today's code."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from us3l.params.runs import PretrainRun
from us3l.pipeline.identity import Identity, differences, fingerprint
from us3l.pipeline.lineage import ABSENT, CurrentSeals, is_code_alone
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.run_directory import lock_of
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

RUNS = Path("runs")
PROBE = "probe.json"  # beside the state: the identity and the probe of the training


@dataclass(frozen=True)
class Unfinished:
    """A training's folder, the record in it, and the training's identity with today's code."""

    folder: Path
    made: dict[str, Any]
    identity: Identity


def unfinished_training(job: Job) -> Unfinished | None:
    """Find the training that a job would continue if its code had not been edited; the latest one."""
    if not (isinstance(job, RunStage) and job.stage == "pretrain" and isinstance(job.run.run, PretrainRun)):
        return None
    [identity] = job.identities(CurrentSeals()).values()
    if (RUNS / fingerprint(identity)).exists():  # a training with today's code, to be continued as it is
        return None
    for path in sorted(RUNS.glob(f"*/{PROBE}"), key=_date, reverse=True):
        try:
            made = read_record(path) if path.is_file() else {}
        except UserError:
            continue
        changed = differences({key: made.get(key, ABSENT) for key in identity}, identity)
        if is_code_alone(changed):
            return Unfinished(path.parent, made, identity)
    return None


def continue_with(unfinished: Unfinished, finding: dict[str, Any]) -> None:
    """Give a training the identity of today's code; `finding`, which says why, becomes part of its record.

    Raises UserError while the training runs.
    """
    folder = unfinished.folder
    lock = lock_of(folder)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: in use by a training; requalify when it has ended") from None
    with held:
        requalified = [*unfinished.made.get("requalified", []), finding]
        kept = {**unfinished.made, **unfinished.identity, "requalified": requalified}
        write_record(folder / PROBE, {key: value for key, value in kept.items() if key != "seal"})
        folder.rename(folder.with_name(fingerprint(unfinished.identity)))
        Path(lock.lock_file).unlink()


def _date(path: Path) -> float:
    """Return when a file was written; the beginning of time for one that is gone meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
