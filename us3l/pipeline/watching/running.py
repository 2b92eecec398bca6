"""A job that a command runs: what it says at its beginning and end, its status file, and its device."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from us3l.params.runs import PretrainRun
from us3l.params.sampling import width_label
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.export import ExportJob
from us3l.pipeline.plan.figure import FigureJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.watching.bar import goes_on
from us3l.pipeline.watching.job_status import COMPUTING, JobStatus, job_status
from us3l.utils.gpus import visible_gpus
from us3l.utils.records import read_record

if TYPE_CHECKING:
    import torch

MANY = 4  # widths to name one by one


@contextmanager
def running(job: RunStage, device: str, gpus: int, threads: int) -> Iterator[tuple["torch.device", JobStatus | None]]:
    """Lease the device of a job, and keep its status file while the block runs; tell what begins, and that it goes on.

    A training tells that itself; of several processes, the first one tells, and alone has a status.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        tell_beginning(job)
    from us3l.utils.devices import leased_device  # imports PyTorch, for seconds

    if not is_first:
        with leased_device(device, gpus, threads) as where:
            yield where, None
        return
    waits = gpus and device != "cpu" and visible_gpus()
    tells_itself = job.stage == "pretrain" and isinstance(job.run.run, PretrainRun)
    with (
        job_status(job, "waiting for a GPU" if waits else "starting") as status,
        leased_device(device, gpus, threads) as where,
        nullcontext() if tells_itself else goes_on(job.command),
    ):
        status.say(COMPUTING, device=str(where))
        yield where, status


def tell_beginning(job: Job) -> None:
    """Print what begins, how to stop it, and what the same command does then."""
    then = "goes on from the last saved step" if job.stage == "pretrain" else "begins again"
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    tell(f"us3l {job.command}, {now}, on {platform.node()}")
    tell(f"  stop      Ctrl-C, or kill {os.getpid()}; the same command {then}")
    tell("  look      us3l status")


def tell_outcome(job: Job) -> None:
    """Print the file that a job has written, and its number."""
    tell(outcome(job))


def tell(line: str) -> None:
    """Print a line on standard error: where nobody can read it, the work that it tells of is done nevertheless."""
    print(line, file=sys.stderr)


def outcome(job: Job) -> str:
    """Return a line with the file that a job has written, and its number."""
    if isinstance(job, PrepareJob):
        folder = job.data.folder
        counts = [f"{len(np.load(folder / f'{split}_labels.npy', mmap_mode='r')):,}" for split in ("train", "test")]
        return f"{folder}: {' training and '.join(counts)} test images"
    if isinstance(job, TableJob):
        cells = read_record(job.record)["cells"]
        made = sum(cell["mean"] is not None for cell in cells)
        return f"{job.table.file('md')}: {made} of {len(cells)} cells have a number"
    if isinstance(job, ExportJob):
        return f"{job.folder}: {len(job.export.widths)} networks, {' '.join(map(width_label, job.export.widths))}"
    if isinstance(job, FigureJob):
        return " and ".join(map(str, job.plain_files))
    assert isinstance(job, RunStage)
    return _outcome_of_run(job)


def _outcome_of_run(job: RunStage) -> str:
    run, seed = job.run, job.seed
    match job.stage:
        case "pretrain":
            epochs = read_record(job.record)["epochs"]
            number = (
                f"loss {epochs[-1]['loss'][0]:.4f} at the widest, {len(epochs)} epochs" if epochs else "no training"
            )
            return f"{run.checkpoint(seed)}: {number}"
        case "calibrate":
            folder = run.network(seed, run.widths[0]).parent
            return f"{folder}: {len(run.widths)} networks, {' '.join(map(width_label, run.widths))}"
    records = [read_record(path) for path in run.evaluation_records(seed)]
    shown = records if len(records) <= MANY else [records[0], records[-1]]
    numbers = [
        f"top-1 {each['top1']:.1f} [{each['interval'][0]:.1f}, {each['interval'][1]:.1f}] at {each['width']:g}x"
        for each in shown
    ]
    more = f" ({len(records)} widths)" if len(shown) < len(records) else ""
    return f"{run.evaluation_record(seed, run.widths[0])}: {', '.join(numbers)}{more}"
