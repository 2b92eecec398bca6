"""The status file of a job: what it is of, where it runs and how far it is. `us3l status` reads those of all hosts.

A thread writes it anew every few seconds. So on a shared file system its date tells a job that runs on another host
from one that died there; on this host, its process does. The file is gone once the job has ended well.
"""

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from us3l.pipeline.plan.job import Job
from us3l.utils.errors import ENDING, UserError
from us3l.utils.records import read_record, write_record

FOLDER = Path(".us3l", "jobs")
BEAT = 5.0  # seconds between two signs of life
COMPUTING = "computing"  # the phase of a job that does not say how far it is
SILENCE = 60.0  # seconds without one, after which a job is taken for dead


class Facts(BaseModel):
    """What a job says of itself. losses, spreads: of the last steps, by the width."""

    model_config = ConfigDict(extra="forbid", strict=True)

    stage: str
    names: list[str]
    seed: int | None
    host: str
    process: int
    started: str
    log: str
    phase: str
    device: str = ""
    folder: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    losses: dict[str, float] = {}
    spreads: dict[str, float] = {}
    images_per_second: float | None = None
    seconds_left: float | None = None
    ended: str = ""

    @property
    def command(self) -> str:
        return " ".join([self.stage, *self.names, *([] if self.seed is None else [str(self.seed)])])


@dataclass(frozen=True)
class FoundJob:
    """A status file that was found; age: seconds since its job's last sign of life."""

    path: Path
    facts: Facts
    age: float

    @property
    def why_dead(self) -> str:
        """Say why the job has broken off; empty while it runs."""
        facts = self.facts
        if facts.ended:
            return facts.ended
        if facts.host == platform.node() and not _is_process(facts.process):
            return f"process {facts.process} is gone; it was killed, or the machine was"
        if self.age > SILENCE:
            return f"no sign of life from {facts.host} for {duration(self.age)}: the host is dead or cut off"
        return ""


class JobStatus:
    """The status of this process's job; `progress` gives what changes while it runs."""

    def __init__(self, job: Job, phase: str) -> None:
        self._path = FOLDER / f"{platform.node()}-{os.getpid()}.json"
        self._facts: dict[str, Any] = {**describe_job(job), "log": _log(), "phase": phase}
        self._progress: Callable[[], dict[str, Any]] = dict
        self._lock = threading.Lock()

    def say(self, phase: str, **facts: Any) -> None:
        """State what the job does now."""
        self._facts |= {"phase": phase, **facts}
        self.write()

    def follow(self, progress: Callable[[], dict[str, Any]]) -> None:
        """Have a function asked for the progress at each sign of life."""
        self._progress = progress

    def write(self) -> None:
        """Write the file; where that fails, the job is merely not to be seen."""
        with suppress(OSError, UserError), self._lock:
            write_record(self._path, {**self._facts, **self._progress()})

    def remove(self) -> None:
        with suppress(OSError), self._lock:
            self._path.unlink(missing_ok=True)


def describe_job(job: Job) -> dict[str, Any]:
    """Describe a job that begins now, here."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    where = {"host": platform.node(), "process": os.getpid(), "started": started}
    return {"stage": job.stage, "names": [*job.names], "seed": job.seed, **where}


@contextmanager
def job_status(job: Job, phase: str) -> Iterator[JobStatus]:
    """Keep the status file of a job while the block runs; after an error it stays, and says what ended the job."""
    status, is_over = JobStatus(job, phase), threading.Event()

    def beat() -> None:
        while not is_over.wait(BEAT):
            status.write()

    _forget_dead(job)
    status.write()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    ended = ""
    try:
        yield status
    except BaseException as error:
        ended = _ending(error)
        raise
    finally:
        is_over.set()
        thread.join()
        status.say("ended", ended=ended) if ended else status.remove()


def found_jobs() -> tuple[list[FoundJob], list[str]]:
    """Read all status files, the oldest jobs first; of those that cannot be read, say why in a sentence each."""
    found, unreadable = [], []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            age = time.time() - path.stat().st_mtime
            content = {key: value for key, value in read_record(path).items() if key != "seal"}
            found.append(FoundJob(path, Facts.model_validate(content), age))
        except ValidationError:
            unreadable.append(f"{path}: another version of us3l wrote it; delete it once its job has ended")
        except UserError as error:
            unreadable += [str(error)] if path.exists() else []
        except FileNotFoundError:  # it has ended meanwhile
            continue
    return sorted(found, key=lambda job: job.facts.started), unreadable


def running_commands() -> set[str]:
    """Return the commands of the jobs that run or wait, without the word us3l."""
    return {job.facts.command for job in found_jobs()[0] if not job.why_dead}


def duration(seconds: float) -> str:
    """Format a time: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _forget_dead(job: Job) -> None:
    """Remove what earlier attempts at a job have left."""
    for each in found_jobs()[0]:
        if each.facts.command == job.command and each.why_dead:
            with suppress(OSError):
                each.path.unlink()


def _ending(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        numbers = {128 + number: number.name for number in ENDING}
        return f"stopped by {numbers[error.code]}" if error.code in numbers else f"exit code {error.code}"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _is_process(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _log() -> str:
    """Return the path of the file that messages go to; empty for a terminal, or where the system does not tell."""
    with suppress(OSError, ValueError):
        path = Path(os.readlink(f"/proc/self/fd/{sys.stderr.fileno()}"))
        if path.is_file():
            return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return ""
