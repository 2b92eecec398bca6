"""`us3l status`: the jobs of this project that run, wait or were broken off, on any host that shares its folder."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from us3l.pipeline.costs import RecordedCosts
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.run_directory import ABOUT
from us3l.pipeline.watching.job_status import COMPUTING, Facts, FoundJob, duration, found_jobs
from us3l.pipeline.watching.wording import numbers, pace
from us3l.utils.errors import UserError, in_one_line
from us3l.utils.reading import read_json
from us3l.utils.records import MOST_BYTES, open_result, read_header

PAUSE = 2.0  # seconds between two looks
STATE = "state.safetensors"
NOTHING = "no job of this project runs, waits or was broken off; `us3l plan` lists what is to do"


def show_status(plan: Plan, runs: Path, follow: bool) -> None:
    """Print what each job does; with `follow`, again and again, until Ctrl-C."""
    if not follow:
        print("\n".join(status_lines(plan, runs)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        _print_changes(plan, runs)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Text("\n".join(status_lines(plan, runs))), refresh=True)
            time.sleep(PAUSE)


def status_lines(plan: Plan, runs: Path) -> list[str]:
    """Describe the jobs in some lines each, then, in a sentence each, what could not be read."""
    found, unreadable = found_jobs()
    known = {job.command: job for job in jobs(plan, plan.studies)}
    shown = [job for job in found if not (job.why_dead and _is_done_since(known.get(job.facts.command), job))]
    folders = {job.facts.folder for job in shown}
    lines = [line for job in shown for line in _job_lines(job, _seconds_left(job, known))]
    for folder in sorted(path for path in runs.glob("*") if path.is_dir() and str(path) not in folders):
        lines += _folder_lines(folder)
    return [in_one_line(line) for line in [*lines, *unreadable]] or [NOTHING]


def _print_changes(plan: Plan, runs: Path) -> None:
    before: list[str] = []
    while True:
        lines = status_lines(plan, runs)
        if lines != before:
            print("\n".join(lines), flush=True)
        before = lines
        time.sleep(PAUSE)


def _is_done_since(job: Job | None, found: FoundJob) -> bool:
    """Tell whether a job that broke off was done later, by a command that did not find its status file."""
    try:
        return job is not None and job.record.stat().st_mtime > found.path.stat().st_mtime
    except OSError:
        return False


def _seconds_left(found: FoundJob, known: dict[str, Job]) -> float | None:
    """Estimate the time left of a job that does not say it, by the records of jobs like it; None without any."""
    job, facts = known.get(found.facts.command), found.facts
    if not isinstance(job, RunStage) or facts.epochs or found.why_dead or facts.phase != COMPUTING:
        return None
    alike = [each for each in known.values() if isinstance(each, RunStage) and each.stage == job.stage]
    cost = RecordedCosts(alike).estimate(job)
    since = datetime.now().astimezone() - datetime.fromisoformat(facts.started)
    return max(0.0, cost.hours * 3600 - since.total_seconds()) if cost else None


def _job_lines(job: FoundJob, seconds_left: float | None) -> Iterator[str]:
    facts = job.facts
    where = f"on {facts.host}{f', {facts.device}' if facts.device else ''}"
    if why := job.why_dead:
        yield f"broken off  us3l {facts.command}  {where}, since {facts.started}: {why}"
    else:
        state = "waiting" if facts.phase.startswith("waiting") else "running"
        yield f"{state:10}  us3l {facts.command}  {where}, since {facts.started}: {facts.phase}"
    if facts.epochs:
        yield f"            {_place(facts)}{'' if job.why_dead else pace(facts.images_per_second, facts.seconds_left)}"
    if seconds_left is not None:
        yield f"            about {duration(seconds_left)} left, by the records of jobs like it"
    if facts.losses:
        yield f"            loss {numbers(facts.losses)}; spread {numbers(facts.spreads)}"
    if facts.log:
        yield f"            log {facts.log}"
    if job.why_dead and facts.folder and Path(facts.folder).is_dir():
        yield f"            state {facts.folder}: the same command goes on from it"


def _place(facts: Facts) -> str:
    return f"epoch {min(facts.epoch + 1, facts.epochs)}/{facts.epochs} step {facts.step}/{facts.steps}"


def _folder_lines(folder: Path) -> Iterator[str]:
    """Describe a run directory that no status file tells of."""
    try:
        about: Any = read_json(folder / ABOUT)
        command = " ".join([about["stage"], *about["names"], str(about["seed"])])
        where = f"on {about['host']}, since {about['started']}"
    except (OSError, ValueError, LookupError, TypeError):
        yield f"broken off  {folder}: does not say what it is of; an older version of us3l left it"
        return
    yield f"broken off  us3l {command}  {where}: its process is gone"
    if saved := _saved_place(folder / STATE):
        yield f"            saved in {saved}"
    yield f"            state {folder}: the same command goes on from it"


def _saved_place(state: Path) -> str:
    """Return epoch and step of a saved state, from its header alone; empty where there is none."""
    try:
        with open_result(state, MOST_BYTES) as file:
            about = json.loads(read_header(file)["__metadata__"]["us3l"])
        return f"epoch {about['epoch'] + 1} after step {about['step']}"
    except (UserError, ValueError, LookupError, TypeError):
        return ""
