"""Lineage: what a job's files were made from by their records, compared with what exists now; without PyTorch."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from us3l.pipeline.identity import differences
from us3l.pipeline.integrity import checked_seal, damaged_since
from us3l.pipeline.plan.job import Job
from us3l.pipeline.requalification import requalification
from us3l.utils.errors import UserError, in_one_line
from us3l.utils.reading import read_json
from us3l.utils.records import read_record

Change = tuple[str, Any, Any]  # what has changed, what it was, what it is now
Changes = dict[Path, list[Change]]  # by the file whose record differs
ABSENT = "absent"
NOT_MADE = "not made yet"
DAMAGED = "damaged"


class CurrentSeals:
    """Seals of files as they are; of a missing one, what the records state. See `us3l.pipeline.plan.job.Seals`."""

    def data(self, folder: Path) -> Any:
        return _entry(folder / "meta.json", "sha256")

    def weights(self, path: Path) -> Any:
        """Return the seal of STUDY/checkpoints/RUN/seedN.safetensors or STUDY/networks/RUN/seedN-wM.safetensors."""
        if path.is_file():
            return _seal(path)
        study, run = path.parents[2], path.parent.name
        seed, _, width = path.stem.partition("-")
        if not width:
            return _entry(study / "pretrain" / run / f"{seed}.json", "checkpoint")
        networks = _entry(study / "calibrate" / run / f"{seed}.json", "networks")
        return networks.get(width, NOT_MADE) if isinstance(networks, dict) else NOT_MADE

    def record(self, path: Path) -> Any:
        return _entry(path, "seal")


def _seal(path: Path) -> str:
    """Return the seal of weights, DAMAGED if they are."""
    try:
        return checked_seal(path)
    except UserError:
        return DAMAGED


def _entry(path: Path, key: str) -> Any:
    """Read one entry of a record, without checking the record's seal; NOT_MADE where there is none."""
    try:
        return read_json(path)[key]
    except (OSError, ValueError, KeyError, TypeError):
        return NOT_MADE


def changes(job: Job) -> Changes:
    """Return what differs for each file that is missing, or whose record has other params, code or inputs.

    Nothing differs in a result that was requalified for today's code.
    """
    found = _all_changes(job)
    return {} if _is_code_alone(found) and requalification(job) else found


def is_outdated_by_code(job: Job) -> bool:
    """Tell whether files of a job are out of date, and by nothing but the code of its stage."""
    return _is_code_alone(changes(job))


def _is_code_alone(changed: Changes) -> bool:
    return is_code_alone([change for of_file in changed.values() for change in of_file])


def is_code_alone(changed: list[Change]) -> bool:
    """Tell whether something has changed, and nothing but the code of a stage."""
    return bool(changed) and all(what.startswith("code.") for what, _, _ in changed)


def _all_changes(job: Job) -> Changes:
    found: Changes = {path: [(str(path), "present", ABSENT)] for path in job.outputs if not path.is_file()}
    if len(found) == len(job.outputs):
        return found
    found |= {path: [(str(path), "whole", DAMAGED)] for path in damaged_since(job)}
    whole = dict(_whole_records(job))
    for path, now in job.identities(CurrentSeals()).items():
        if path not in found and (changed := _changes(path, whole.get(path), now)):
            found[path] = changed
    return found | {path: [change] for path, change in _foreign_weights(job, whole).items() if path not in found}


def _whole_records(job: Job) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the records of a job that are neither missing nor damaged, by their path."""
    for path in job.records:
        with suppress(UserError):
            yield path, read_record(path)


def _foreign_weights(job: Job, records: dict[Path, dict[str, Any]]) -> dict[Path, Change]:
    """Find weights whose seals are not those that the job's records state."""
    stated: dict[Path, Any] = {}
    for record in records.values():
        with suppress(UserError):  # another version's, which lacks an entry
            stated |= job.stated_seals(record)
    actual = {path: _seal(path) for path in stated if path.is_file()}
    return {path: ("seal", stated[path], seal) for path, seal in actual.items() if seal not in (stated[path], DAMAGED)}


def _changes(path: Path, made: dict[str, Any] | None, now: dict[str, Any]) -> list[Change]:
    """List what differs between a record, None for a damaged one, and what it would state now."""
    if made is None:
        return [(str(path), "whole", DAMAGED)]
    return differences({key: made.get(key, ABSENT) for key in now}, now)


def diff(change: Change) -> str:
    """Format a change as two lines of a diff."""
    what, was, now = change
    return "\n".join(in_one_line(f"{sign}{what}: {value}") for sign, value in (("-", was), ("+", now)))


def jobs_to_do(jobs: list[Job]) -> dict[Job, Changes]:
    """Return the jobs that would run, each with what has changed; `jobs`: each after those whose files it reads.

    The changes are empty for a job that would run only because one before it does.
    """
    found: dict[Job, Changes] = {}
    rewritten: set[Path] = set()
    for job in jobs:
        changed = changes(job)
        if changed or not rewritten.isdisjoint(job.inputs):
            found[job] = changed
            rewritten.update(job.outputs)
    return found
