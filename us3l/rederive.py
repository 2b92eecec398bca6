"""Deriving results again in a folder of its own, by the same commands, and holding them against the recorded ones."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.cells import Selection
from us3l.errors import UserError
from us3l.jobs import Job
from us3l.lineage import identities
from us3l.plan import RunPlan
from us3l.provenance import fingerprint
from us3l.records import read_record
from us3l.rundir import run_directory

RESULT = ("top1", "top5", "interval", "n", "parameters", "macs", "networks", "checkpoint", "network")


@dataclass(frozen=True)
class Rederived:
    """A record, and the one that came again."""

    path: Path
    made: dict[str, Any]
    again: dict[str, Any]

    @property
    def like_here(self) -> bool:
        """Whether the same hardware and versions made both, on a CPU: then the bits are the same."""
        same = all(self.made[key] == self.again[key] for key in ("hardware", "versions"))
        return same and self.made["hardware"]["device"] == "cpu"

    def difference(self) -> str | None:
        """The first thing that is not the same, bit for bit."""
        for key in RESULT:
            made, again = self.made.get(key), self.again.get(key)
            if made != again:
                return f"{self.path}: {key} {made} was recorded, {again} came again"
        return None


def rederive(selection: Selection, stages: tuple[str, ...]) -> list[Rederived]:
    """Run the stages again for every selected run and seed, as many at a time as there are cores.

    Trainings that were broken off go on at the next call, and those that were done stay done.
    Raises UserError where a recorded result is absent or damaged, before any work, and where a command fails.
    """
    work = [
        ([Job(stage, run, seed) for stage in stages], _recorded(run, seed, widths, stages))
        for run, widths in selection.widths.items()
        for seed in run.seeds
    ]
    with run_directory(Path("runs", f"verify-{stages[0]}")) as folder:
        shutil.copy(selection.params, folder / "params.yaml")
        _link(folder / "data", Path("data"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda each: _derive(*each, folder), work)
            return [each for some in found for each in some]


def _recorded(run: RunPlan, seed: int, widths: list[float], stages: tuple[str, ...]) -> dict[Path, dict[str, Any]]:
    """The records to hold the new ones against."""
    paths = [run.calibration(seed), *(run.evaluation(seed, width) for width in widths)]
    return {path: read_record(path) for path in ([run.training(seed), *paths] if "pretrain" in stages else paths)}


def _derive(jobs: list[Job], recorded: dict[Path, dict[str, Any]], folder: Path) -> list[Rederived]:
    """Run the jobs in the folder, with the stored checkpoint where they do not train."""
    first = jobs[0]
    if first.stage != "pretrain":
        for path in (first.of.checkpoint(first.seed), first.of.training(first.seed)):
            _link(folder / path, path)
    for job in jobs:
        if job.stage != "pretrain" or not _is_done(job, folder):
            _run(job, folder)
    return [Rederived(path, made, read_record(folder / path)) for path, made in recorded.items()]


def _is_done(job: Job, folder: Path) -> bool:
    """Whether an earlier call has trained this to the end, from the params and code of today."""
    try:
        return read_record(folder / job.record)["fingerprint"] == fingerprint(identities(job)[job.record])
    except UserError:
        return False


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def _run(job: Job, folder: Path) -> None:
    resources = job.of.run.resources
    gpus = resources.gpus if job.stage == "pretrain" else min(1, resources.gpus)
    options = ["--gpus", str(gpus), "--threads", str(resources.threads)]
    command = [sys.executable, "-m", "us3l", *job.command.split(), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(f"us3l {job.command}, run again in {folder}: {' '.join(said).removeprefix('us3l: ')}")
