"""`us3l why FILE`: what has changed since a file was made, and what would therefore run again."""

from collections import Counter
from pathlib import Path

from us3l.pipeline.lineage import Change, jobs_to_do
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

MANY = 20  # jobs to name one by one


def explain(plan: Plan, path: Path) -> None:
    """Print what has changed in each job that the file depends on, and what would run again.

    Raises UserError if no job makes the file.
    """
    everything = jobs(plan, plan.studies)
    producers = {output: job for job in everything for output in job.outputs}
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    if path not in producers:
        raise UserError(f"{path}: no job of params.yaml makes this file; `us3l plan` lists the runs")
    to_do = jobs_to_do(everything)
    chain = _ancestors(producers[path], producers)
    changed = [job for job in everything if job in chain and to_do.get(job)]
    print(_origin(producers[path], path))
    for job in changed:
        if not any(path.is_file() for path in job.outputs):
            print(f"\nus3l {job.command}: not made yet")
            continue
        print(f"\n--- us3l {job.command}, as it was\n+++ us3l {job.command}, as it would be now")
        for line in dict.fromkeys(_diff(change) for each in to_do[job].values() for change in each):
            print(line)
    again = _descendants(changed, everything)
    print(f"\nwould run again: {_names(again)}" if changed else "nothing that it rests on has changed since")


def _ancestors(job: Job, producers: dict[Path, Job]) -> set[Job]:
    """Return the job, and all jobs that its files depend on."""
    found, waiting = set(), [job]
    while waiting:
        job = waiting.pop()
        if job not in found:
            found.add(job)
            waiting += {producers[path] for path in job.inputs}
    return found


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
    try:
        record = read_record(job.record)
    except UserError:
        return f"{path}: no record tells of it; `us3l {job.command}` makes it"
    if "finished" not in record:
        return f"{path}: made by `us3l {job.command}`"
    git = record["git"]
    commit = f"commit {git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else "no git repository"
    return f"{path}: made {record['finished']} by `us3l {job.command}`, {commit}"


def _diff(change: Change) -> str:
    what, was, now = change
    return f"-{what}: {was}\n+{what}: {now}"


def _names(jobs: list[Job]) -> str:
    if len(jobs) <= MANY:
        return ", ".join(job.command for job in jobs)
    counts = Counter(job.stage for job in jobs)
    return ", ".join(f"{count} x {stage}" for stage, count in counts.items())
