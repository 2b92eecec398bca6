"""Results derived again in a separate folder, by the same commands, for comparison with the recorded ones."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from us3l.params.dataset import Cifar, Transfer
from us3l.params.runs import ImportRun
from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.forms import FORMS, wrong_form
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.dataset import DOWNLOADS, DatasetPlan, PrepareJob
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.requalify import ProbedJob
from us3l.pipeline.verify.scratch import remove, scratch
from us3l.pipeline.verify.selection import Selection
from us3l.pipeline.verify.sources import missing_source, wrong_sources
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

LOGITS = Path("logits")


@dataclass(frozen=True)
class Rederived:
    """A recorded result, and the same one derived again in `folder`."""

    job: ProbedJob
    path: Path
    folder: Path
    recorded: dict[str, Any]
    again: dict[str, Any]

    @property
    def logits(self) -> Path:
        """File of the logits of an evaluation that was derived again."""
        return self.folder / _logits_folder(self.job) / f"{self.path.stem}.npy"


@dataclass(frozen=True)
class Derivation:
    """Results that were derived again, in the order of their jobs, and why the results of other jobs were not."""

    results: list[Rederived]
    missing: dict[ProbedJob, str]

    @cached_property
    def behind(self) -> dict[ProbedJob, list[ProbedJob]]:
        """For each job the jobs that its result rests on, itself included, as far as they run again or should."""
        everything = dict.fromkeys([*self.missing, *(each.job for each in self.results)])
        producers = {path: job for job in everything for path in job.outputs}
        found: dict[ProbedJob, list[ProbedJob]] = {}
        for job in everything:
            before = dict.fromkeys(producers[path] for path in job.inputs if path in producers)
            found[job] = [job, *dict.fromkeys(each for one in before for each in found.get(one, [one]))]
        return found

    def not_made(self, each: Rederived) -> list[str]:
        """Say what a result rests on that was not made again."""
        return [self.missing[job] for job in self.behind[each.job] if job in self.missing]


@dataclass(frozen=True, eq=False)
class PreparedElsewhere(DatasetPlan):
    """A data set whose arrays go below another folder, while its source stays where it is."""

    elsewhere: Path

    @property
    def folder(self) -> Path:
        return self.elsewhere / super().folder


class SealsIn(CurrentSeals):
    """Seals of the files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def data(self, folder: Path) -> Any:
        return super().data(self.root / folder)

    def weights(self, path: Path) -> Any:
        return super().weights(self.root / path)


@contextmanager
def rederived(selection: Selection, first: str) -> Iterator[Derivation]:
    """Run the stages from `first`, pretrain (with the data sets) or calibrate, again for all runs, on all cores.

    What is before them, and what cannot be made here because its source is missing, is taken as it is.
    The next call continues trainings that were interrupted, and keeps those that were done.
    Raises UserError where a recorded result is missing or damaged, before any work, and where a command fails.
    """
    jobs = [job for job in selection.jobs if isinstance(job, ProbedJob)]
    before = ("prepare", "pretrain") if first == "calibrate" else ()
    missing = {job: why for job in jobs if job.stage not in before and (why := missing_source(job))}
    again = [job for job in jobs if job.stage not in before and job not in missing]
    jobs_of = _records(selection, again)
    recorded = {path: _read(job, path) for path, job in jobs_of.items()}
    with scratch(Path("runs", f"verify-{first}")) as folder:
        _copy_params(selection.plan, folder)
        for job in jobs:
            if job not in again:
                _link_outputs(job, folder)
        _derive_all(again, folder)
        results = [
            Rederived(job, path, folder, recorded[path], read_record(folder / path)) for path, job in jobs_of.items()
        ]
        yield Derivation(results, missing)


def _records(selection: Selection, again: list[ProbedJob]) -> dict[Path, ProbedJob]:
    """Return the records to compare, those that the selected cells rest on, each with the job that runs again."""
    chosen = {
        path
        for run, widths in selection.widths.items()
        for seed in run.seeds
        for width in widths
        for path in run.lineage(seed, width)
    }
    made = {path: job for job in again for path in job.records}
    return {path: job for path, job in made.items() if path in chosen or isinstance(job, PrepareJob)}


def _read(job: ProbedJob, path: Path) -> dict[str, Any]:
    """Read a record. Raises UserError where it is missing, damaged or of another form."""
    record = read_record(path)
    if wrong := wrong_form(path, record, FORMS[job.stage]):
        raise UserError(wrong[0])
    return record


def _copy_params(plan: Plan, folder: Path) -> None:
    """Copy the params file and those that it includes; link what custom networks and imports read beside them."""
    shutil.copy(plan.file, folder / "params.yaml")
    for name in plan.included:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(plan.file.parent / name, folder / name)
    networks = {path for run in plan.runs.values() for path in run.network_files}
    imported = {Path(run.run.checkpoint) for run in plan.runs.values() if isinstance(run.run, ImportRun)}
    for path in networks | {path for path in imported if not path.is_absolute()}:
        _link(folder / path, path)


def _derive_all(jobs: list[ProbedJob], folder: Path) -> None:
    """Prepare data sets, then run the other jobs in parallel, each once the jobs whose files it reads are done."""
    for job in jobs:
        if isinstance(job, PrepareJob):
            _prepare(job, folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running: dict[Path, Future[None]] = {}
        for job in jobs:
            if isinstance(job, RunStage):
                before = [running[path] for path in job.inputs if path in running]
                running |= dict.fromkeys(job.outputs, pool.submit(_derive, job, before, folder))
        for each in running.values():
            each.result()


def _prepare(job: PrepareJob, folder: Path) -> None:
    """Prepare a data set in a process of its own, from a source that is here: nothing is downloaded, or deleted."""
    dataset = job.data.dataset
    if isinstance(dataset.source, Cifar) and (wrong := wrong_sources([job])):
        raise UserError(wrong[0])
    if isinstance(dataset.source, Transfer):
        dataset = dataset.model_copy(update={"source": dataset.source.model_copy(update={"download": False})})
    remove(folder / job.data.folder)
    with ProcessPoolExecutor(1, get_context("fork")) as process:
        process.submit(_prepare_there, PrepareJob(PreparedElsewhere(job.data.name, dataset, folder))).result()


def _prepare_there(job: PrepareJob) -> None:
    from us3l.pipeline.stages.prepare import prepare

    prepare(job, DOWNLOADS)


def _derive(job: RunStage, before: list[Future[None]], folder: Path) -> None:
    for each in before:
        each.result()
    if job.stage != "pretrain" or not _is_done(job, folder):
        _run(job, folder)


def _is_done(job: RunStage, folder: Path) -> bool:
    """Tell whether an earlier call finished this training, from the params, the code and the data that are there."""
    try:
        made = read_record(folder / job.record)["fingerprint"]
    except UserError:
        return False
    return bool(made == fingerprint(job.identities(SealsIn(folder))[job.record]))


def _link_outputs(job: ProbedJob, folder: Path) -> None:
    """Link what a job made; a data set as a whole, whose table of files may name a folder relative to its own."""
    for path in [job.data.folder] if isinstance(job, PrepareJob) else job.outputs:
        _link(folder / path, path)


def _link(link: Path, target: Path) -> None:
    remove(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.resolve())


def _logits_folder(job: ProbedJob) -> Path:
    return LOGITS.joinpath(*job.names)


def _run(job: RunStage, folder: Path) -> None:
    options = ["--gpus", str(job.gpus), "--threads", str(job.run.run.resources.threads)]
    logits = ["--logits", str(_logits_folder(job))] if job.stage in EVALUATIONS else []
    command = [sys.executable, "-m", "us3l", *job.command.split(), "--force", *options, *logits]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(f"us3l {job.command}, run again in {folder}: {' '.join(reason).removeprefix('us3l: ')}")
