"""Results derived again in a separate folder, by the same commands, for comparison with the recorded ones."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.pipeline.identity import fingerprint
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.run_directory import run_directory
from us3l.pipeline.verify.selection import Selection
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

RESULT = ("top1", "top5", "interval", "n", "parameters", "macs", "networks", "checkpoint", "network")


@dataclass(frozen=True)
class Rederived:
    """A recorded result, and the same one derived again."""

    path: Path
    recorded: dict[str, Any]
    again: dict[str, Any]

    @property
    def same_platform(self) -> bool:
        """True if the same hardware and versions made both, on a CPU: then both must be equal bit for bit."""
        same = all(self.recorded[key] == self.again[key] for key in ("hardware", "versions"))
        return same and self.recorded["hardware"]["device"] == "cpu"

    def difference(self) -> str | None:
        """Describe the first value of the result that differs."""
        for key in RESULT:
            recorded, again = self.recorded.get(key), self.again.get(key)
            if recorded != again:
                return f"{self.path}: {key} {recorded} was recorded, {again} came again"
        return None


def rederive(selection: Selection, first: str) -> list[Rederived]:
    """Run the stages from `first`, pretrain or calibrate, again for every selected run and seed, on all cores.

    The next call continues trainings that were interrupted, and keeps those that were done.
    Raises UserError where a recorded result is missing or damaged, before any work, and where a command fails.
    """
    jobs = [job for job in selection.jobs if isinstance(job, RunStage)]
    given: list[RunStage] = [job for job in jobs if job.stage == "pretrain"] if first == "calibrate" else []
    recorded = {path: read_record(path) for path in _records(selection, given)}
    with run_directory(Path("runs", f"verify-{first}")) as folder:
        _copy_params(selection.plan, folder)
        _link(folder / "data", Path("data"))
        for path in (path for job in given for path in job.outputs):
            _link(folder / path, path)
        _run_all([job for job in jobs if job not in given], folder)
        return [Rederived(path, record, read_record(folder / path)) for path, record in recorded.items()]


def _copy_params(plan: Plan, folder: Path) -> None:
    """Copy the params file and those that it includes, and link the sources of all custom networks that they name."""
    shutil.copy(plan.file, folder / "params.yaml")
    for name in plan.included:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(plan.file.parent / name, folder / name)
    for path in {path for run in plan.runs.values() for path in run.network_files}:
        if not (folder / path).exists():
            _link(folder / path, path)


def _records(selection: Selection, given: list[RunStage]) -> list[Path]:
    """List the records to compare: those of the selected cells, and of the stages before them that run again."""
    sources = [
        path
        for run, widths in selection.widths.items()
        for seed in run.seeds
        for width in widths
        for path in run.lineage(seed, width)
    ]
    return sorted({*sources} - {job.record for job in given})


def _run_all(jobs: list[RunStage], folder: Path) -> None:
    """Run jobs in parallel, each once the jobs before it in the list whose files it reads are done."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running: dict[Path, Future[None]] = {}
        for job in jobs:
            before = [running[path] for path in job.inputs if path in running]
            running |= dict.fromkeys(job.outputs, pool.submit(_derive, job, before, folder))
        for each in running.values():
            each.result()


def _derive(job: RunStage, before: list[Future[None]], folder: Path) -> None:
    for each in before:
        each.result()
    if job.stage != "pretrain" or not _is_done(job, folder):
        _run(job, folder)


def _is_done(job: RunStage, folder: Path) -> bool:
    """Tell whether an earlier call finished this training, from the current params and code."""
    try:
        return read_record(folder / job.record)["fingerprint"] == fingerprint(
            job.identities(CurrentSeals())[job.record]
        )
    except UserError:
        return False


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def _run(job: RunStage, folder: Path) -> None:
    resources = job.run.run.resources
    gpus = resources.gpus if job.stage == "pretrain" else min(1, resources.gpus)
    options = ["--gpus", str(gpus), "--threads", str(resources.threads)]
    command = [sys.executable, "-m", "us3l", *job.command.split(), "--force", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(f"us3l {job.command}, run again in {folder}: {' '.join(reason).removeprefix('us3l: ')}")
