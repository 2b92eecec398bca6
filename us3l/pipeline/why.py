"""`us3l why FILE`: what has changed since a file was made, and what would therefore run again."""

from collections import Counter
from pathlib import Path

from us3l.pipeline.lineage import NOT_MADE, Change, Changes, CurrentSeals, diff, jobs_to_do
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs, jobs_behind
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.provenance import describe_commit
from us3l.pipeline.tables.changes import table_lines
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

MANY = 20  # jobs to name one by one


def explain(plan: Plan, path: Path) -> None:
    """Print what has changed in each job that the file depends on, and what would run again.

    Raises UserError if no job makes the file.
    """
    everything = jobs(plan, plan.studies)
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    job = next((each for each in everything if path in each.outputs), None)
    if job is None:
        raise UserError(f"{path}: no job of params.yaml makes this file; `us3l plan` lists the runs")
    to_do = jobs_to_do([*jobs_behind(job, everything), job])
    changed = [each for each, changes in to_do.items() if changes]
    print(_origin(job, path))
    for each in changed:
        print(f"\n{_difference(each, to_do[each])}")
    again = _descendants(changed, everything)
    print(f"\nwould run again: {_names(again)}" if changed else "nothing that it rests on has changed since")


def _difference(job: Job, changes: Changes) -> str:
    """Describe what has changed in a job, as a diff; in one line if none of its files is there."""
    if not any(path.is_file() for path in job.outputs):
        return f"us3l {job.command}: {NOT_MADE}"
    lines = dict.fromkeys(line for path in changes for line in _lines(job, path, changes[path]))
    title = f"--- us3l {job.command}, as it was\n+++ us3l {job.command}, as it would be now"
    return "\n".join([title, *lines])


def _lines(job: Job, path: Path, changes: list[Change]) -> list[str]:
    """Describe what has changed for one file of a job."""
    if not path.is_file():
        return [f"{path}: {_absence(job, path)}"]
    if changes[0][0] == str(path):  # damaged
        return [diff(changes[0])]
    if isinstance(job, TableJob):
        try:
            return table_lines(job, read_record(path), changes)
        except UserError as error:
            return [str(error)]
    return [diff(change) for change in changes]


def _absence(job: Job, path: Path) -> str:
    """Tell a file that was never made from one that is gone, of which a record tells."""
    seals = CurrentSeals()
    if path in job.identities(seals):  # a record itself
        return NOT_MADE
    is_weights = path.suffix == ".safetensors" and path not in job.plain_files
    is_known = seals.weights(path) != NOT_MADE if is_weights else job.record.is_file()
    return "made, and no longer there" if is_known else NOT_MADE


def _descendants(changed: list[Job], everything: list[Job]) -> list[Job]:
    """Return the jobs, and all jobs that depend on their files, in order."""
    found: list[Job] = []
    made: set[Path] = set()
    first = set(changed)
    for job in everything:
        if job in first or not made.isdisjoint(job.inputs):
            found.append(job)
            made.update(job.outputs)
    return found


def _origin(job: Job, path: Path) -> str:
    """Describe when the file was made, by which command and from which commit."""
    if not path.is_file():
        return f"{path}: {_absence(job, path)}; `us3l {job.command}` makes it"
    try:
        record = read_record(job.record)
    except UserError:
        return f"{path}: no record tells of it; `us3l {job.command}` makes it"
    if "finished" not in record:
        return f"{path}: made by `us3l {job.command}`"
    commit = describe_commit(record["git"])
    origin = f"commit {commit}" if commit else "no git repository"
    return f"{path}: made {record['finished']} by `us3l {job.command}`, {origin}"


def _names(jobs: list[Job]) -> str:
    if len(jobs) <= MANY:
        return ", ".join(job.command for job in jobs)
    counts = Counter(job.stage for job in jobs)
    return ", ".join(f"{count} x {stage}" for stage, count in counts.items())
