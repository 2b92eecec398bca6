"""`us3l requalify`: run the probe of each result that only its code makes out of date; equal results stay."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.lineage import changes, is_outdated_by_code
from us3l.pipeline.plan.dataset import DOWNLOADS, PrepareJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs, jobs_for
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.probes.comparison import FLOAT64, Difference, Outcome, beyond_rounding, differences
from us3l.pipeline.provenance import circumstances
from us3l.pipeline.requalification import record_seals, requalification_file
from us3l.pipeline.unfinished import Unfinished, continue_with, unfinished_training
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

STAGE_MODULES = "us3l.pipeline.stages"

ProbedJob = PrepareJob | RunStage
Probed = tuple[Outcome, dict[str, Any]]  # the outcome of a probe, and its circumstances


@dataclass(frozen=True)
class Subject:
    """A result, or an unfinished training, that only its code makes out of date; made: its record."""

    job: ProbedJob
    made: dict[str, Any]
    unfinished: Unfinished | None = None


@dataclass(frozen=True)
class Finding:
    """How the outcome of a probe compares with the recorded one."""

    subject: Subject
    differences: list[Difference]
    beyond_rounding: list[Difference]

    @property
    def largest(self) -> Difference | None:
        """The largest difference; a training's in float64, if there is one: in float32 it magnifies rounding."""
        in_float64 = [each for each in self.differences if each.key.startswith(FLOAT64)]
        if FLOAT64 in self.subject.made["probe"] and self.differences and not in_float64:
            return Difference(FLOAT64, None, None, 0.0)
        return max(in_float64 or self.differences, key=lambda each: each.relative, default=None)

    @property
    def is_equal(self) -> bool:
        return not self.beyond_rounding

    def __str__(self) -> str:
        command = f"us3l {self.subject.job.command}{', unfinished' if self.subject.unfinished else ''}"
        if self.beyond_rounding:
            return f"{command}: differs, stays out of date: {self.beyond_rounding[0]}"
        if self.largest:
            return f"{command}: equal within rounding, at most {self.largest.relative:.1e} apart ({self.largest.key})"
        return f"{command}: equal, bitwise"


def requalify(plan: Plan, address: str | None) -> bool:
    """Probe what only its code makes out of date in a study, in a run or in all that is built; keep what was found.

    Print a line for each result, and return whether all of them are equal.
    """
    holds = True
    subjects = []
    for subject in _subjects(_selected(plan, address)):
        if "probe" in subject.made:
            subjects.append(subject)
        else:
            print(f"us3l {subject.job.command}: has no probe, stays out of date: make it again")
            holds = False
    kept: set[RunPlan] = set()
    for subject, probed in zip(subjects, probe_all(subjects), strict=True):
        if isinstance(probed, UserError):
            print(f"us3l {subject.job.command}: cannot be probed, stays out of date: {probed}", flush=True)
            holds = False
            continue
        finding = compare(subject, probed)
        print(finding, flush=True)
        holds &= finding.is_equal
        if finding.is_equal:
            _keep(finding, probed)
            kept |= {subject.job.run} if isinstance(subject.job, RunStage) else set()
    _write_tables(plan, kept)
    return holds


def compare(subject: Subject, probed: Probed) -> Finding:
    """Compare the outcome of a probe with the recorded one."""
    recorded, now = subject.made["probe"], probed[0]
    return Finding(subject, differences(recorded, now), beyond_rounding(recorded, now))


def _write_tables(plan: Plan, runs: set[RunPlan]) -> None:
    """Write the tables again that show runs, or runs that took their weights, and are otherwise up to date."""
    for table in plan.tables.values():
        job = TableJob(table)
        shown = {origin for run in table.runs.values() for origin in (run, *(each for each, _ in run.ancestors))}
        if job.done and not shown.isdisjoint(runs) and not changes(job):
            from us3l.pipeline.stages.table import write_table  # imports pandas

            write_table(job)


def _selected(plan: Plan, address: str | None) -> list[Job]:
    """Return the jobs of STUDY, of STUDY/RUN, or of the studies to build, with those whose results they rest on.

    Raises UserError for a study or run that params.yaml does not have.
    """
    study, _, run = (address or "").partition("/")
    if run:
        return jobs_for(plan, [plan.run(study, run)], [])
    if study:
        plan.require_study(study)
    return jobs(plan, [study] if study else plan.build)


def _subjects(jobs: Iterable[Job]) -> Iterator[Subject]:
    for job in jobs:
        if not isinstance(job, ProbedJob):
            continue
        if is_outdated_by_code(job):
            yield Subject(job, read_record(job.record))
        elif unfinished := unfinished_training(job):
            yield Subject(job, unfinished.made, unfinished)


def probe_all(subjects: list[Subject]) -> Iterator[Probed | UserError]:
    """Run the probes of results in parallel, on all cores; yield for each its outcome and circumstances, in order.

    Yield the UserError of what cannot be probed, such as a data set whose source is no longer there.
    """
    threads = max((subject.made["hardware"].get("threads", 1) for subject in subjects), default=1)
    workers = max(1, (os.cpu_count() or 1) // threads)
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        yield from pool.map(_try_to_probe, subjects)


def _try_to_probe(subject: Subject) -> Probed | UserError:
    try:
        return _probe(subject)
    except UserError as error:
        return error


def _probe(subject: Subject) -> Probed:
    """Run the probe of a job with the present code, on the device and with the threads of its record."""
    if isinstance(subject.job, PrepareJob):
        from us3l.pipeline.stages.prepare import probe

        return probe(subject.job, DOWNLOADS), circumstances(subject.made, None)
    return _probe_run(subject.job, subject.made)


def _probe_run(job: RunStage, made: dict[str, Any]) -> Probed:
    from us3l.utils.devices import leased_device

    hardware = made["hardware"]
    with leased_device(hardware["device"], job.run.run.resources.gpus, hardware["threads"]) as device:
        if job.stage in EVALUATIONS:
            stage, arguments = "evaluate", [import_module(EVALUATIONS[job.stage]).evaluate_networks]
        else:
            stage, arguments = job.stage, []
        outcome: Outcome = import_module(f"{STAGE_MODULES}.{stage}").probe(job, device, *arguments)
        return outcome, circumstances(made, device)


def _keep(finding: Finding, probed: Probed) -> None:
    """Write what was found beside the records, or into the folder of an unfinished training."""
    subject, largest = finding.subject, finding.largest
    job = subject.job
    found = {
        "stage": job.stage,
        "was": subject.made["code"],
        "now": job.code,
        "promise": "within rounding" if largest else "bitwise",
        "largest_difference": {"key": largest.key, "relative": largest.relative} if largest else None,
        "probe": probed[0],
        **probed[1],
    }
    if subject.unfinished:
        continue_with(subject.unfinished, found)
    else:
        write_record(requalification_file(job), {**found, "records": record_seals(job)})
