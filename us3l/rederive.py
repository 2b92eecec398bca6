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
from us3l.records import read_record
from us3l.rundir import run_directory

SCRATCH = Path("runs", "verify")
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

    A broken-off training goes on at the next call. Raises UserError where a command fails.
    """
    pairs = [(run, seed) for run in selection.widths for seed in run.seeds]
    with run_directory(SCRATCH) as folder:
        shutil.copy(selection.params, folder / "params.yaml")
        _link(folder / "data", Path("data"))
        shutil.rmtree(folder / "results", ignore_errors=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda pair: _derive(*pair, stages, folder, selection.widths), pairs)
            return [each for some in found for each in some]


def _derive(
    run: RunPlan, seed: int, stages: tuple[str, ...], folder: Path, widths: dict[RunPlan, list[float]]
) -> list[Rederived]:
    wanted = [*(run.evaluation(seed, width) for width in widths[run]), run.calibration(seed), run.training(seed)]
    if stages[0] != "pretrain":
        for path in (run.checkpoint(seed), run.training(seed)):
            _link(folder / path, path)
    found = []
    for stage in stages:
        job = Job(stage, run, seed)
        _run(job, folder)
        found += [
            Rederived(path, read_record(path), read_record(folder / path)) for path in identities(job) if path in wanted
        ]
    return found


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
