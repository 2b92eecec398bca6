"""`us3l requalify`: run the probe of each result that only its code makes out of date; equal results stay."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from us3l.pipeline.code import EVALUATIONS, code
from us3l.pipeline.lineage import changes, is_outdated_by_code
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.plan.table import TableJob
from us3l.pipeline.probes.comparison import ROUNDING, Difference, Outcome, differences
from us3l.pipeline.provenance import circumstances
from us3l.pipeline.requalification import record_seals, requalification_file
from us3l.pipeline.unfinished import Unfinished, continue_with, unfinished_training
from us3l.utils.records import read_record, write_record

STAGE_MODULES = "us3l.pipeline.stages"

Probed = tuple[Outcome, dict[str, Any]]  # the outcome of a probe, and its circumstances


@dataclass(frozen=True)
class Subject:
    """A result, or an unfinished training, that only its code makes out of date; made: its record."""

    job: RunStage
    made: dict[str, Any]
    unfinished: Unfinished | None = None


@dataclass(frozen=True)
class Verdict:
    """How the outcome of a probe compares with the recorded one."""

    subject: Subject
    differences: list[Difference]

    @property
    def largest(self) -> Difference | None:
        return max(self.differences, key=lambda each: each.relative, default=None)

    @property
    def is_equal(self) -> bool:
        return self.largest is None or self.largest.relative <= ROUNDING

    def __str__(self) -> str:
        command = f"us3l {self.subject.job.command}{', unfinished' if self.subject.unfinished else ''}"
        if not self.largest:
            return f"{command}: equal, bitwise"
        if self.is_equal:
            return f"{command}: equal within rounding, at most {self.largest.relative:.1e} apart ({self.largest.key})"
        first = next(each for each in self.differences if each.relative > ROUNDING)
        return f"{command}: differs, stays out of date: {first}"


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
        verdict = compare(subject, probed)
        print(verdict, flush=True)
        holds &= verdict.is_equal
        if verdict.is_equal:
            _keep(verdict, probed)
            kept.add(subject.job.run)
    _write_tables(plan, kept)
    return holds


def compare(subject: Subject, probed: Probed) -> Verdict:
    """Compare the outcome of a probe with the recorded one."""
    return Verdict(subject, differences(subject.made["probe"], probed[0]))


def _write_tables(plan: Plan, runs: set[RunPlan]) -> None:
    """Write the tables again that show runs, or runs that took their weights, and are otherwise up to date."""
    for table in plan.tables.values():
        job = TableJob(table)
        shown = {origin for run in table.runs.values() for origin in (run, *(each for each, _ in run.ancestors))}
        if job.done and not shown.isdisjoint(runs) and not changes(job):
            from us3l.pipeline.stages.table import write_table  # imports pandas

            write_table(job)


def _selected(plan: Plan, address: str | None) -> list[RunStage]:
    """Return the jobs of STUDY, of STUDY/RUN, or of the studies to build. Raises UserError for what is missing."""
    study, _, run = (address or "").partition("/")
    if run:
        plan.run(study, run)
    elif study:
        plan.require_study(study)
    found = [job for job in jobs(plan, [study] if study else plan.build) if isinstance(job, RunStage)]
    return [job for job in found if not run or (job.run.study, job.run.name) == (study, run)]


def _subjects(jobs: Iterable[RunStage]) -> Iterator[Subject]:
    for job in jobs:
        if is_outdated_by_code(job):
            yield Subject(job, read_record(job.record))
        elif unfinished := unfinished_training(job):
            yield Subject(job, unfinished.made, unfinished)


def probe_all(subjects: list[Subject]) -> Iterator[Probed]:
    """Run the probes of results in parallel, on all cores; yield for each its outcome and circumstances, in order."""
    threads = max((subject.made["hardware"]["threads"] for subject in subjects), default=1)
    workers = max(1, (os.cpu_count() or 1) // threads)
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        yield from pool.map(_probe, subjects)


def _probe(subject: Subject) -> Probed:
    """Run the probe of a job with the present code, on the device and with the threads of its record."""
    from us3l.utils.devices import leased_device

    job, hardware = subject.job, subject.made["hardware"]
    with leased_device(hardware["device"], job.run.run.resources.gpus, hardware["threads"]) as device:
        if job.stage in EVALUATIONS:
            stage, arguments = "evaluate", [import_module(EVALUATIONS[job.stage]).predict_logits]
        else:
            stage, arguments = job.stage, []
        outcome: Outcome = import_module(f"{STAGE_MODULES}.{stage}").probe(job, device, *arguments)
        return outcome, circumstances(subject.made, device)


def _keep(verdict: Verdict, probed: Probed) -> None:
    """Write what was found beside the records, or into the folder of an unfinished training."""
    subject, largest = verdict.subject, verdict.largest
    job = subject.job
    finding = {
        "stage": job.stage,
        "was": subject.made["code"],
        "now": code(job.stage),
        "promise": "within rounding" if largest else "bitwise",
        "largest_difference": {"key": largest.key, "relative": largest.relative} if largest else None,
        "probe": probed[0],
        **probed[1],
    }
    if subject.unfinished:
        continue_with(subject.unfinished, finding)
    else:
        write_record(requalification_file(job), {**finding, "records": record_seals(job)})
