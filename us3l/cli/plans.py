"""What commands do with the plan of a params file: find a job in it, and say that it is done."""

from pathlib import Path
from typing import TYPE_CHECKING

from us3l.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from us3l.pipeline.deploy import DeployedRun
    from us3l.pipeline.plan.export import ExportJob
    from us3l.pipeline.plan.job import Job
    from us3l.pipeline.plan.plan import Plan
    from us3l.pipeline.plan.run import RunStage


def load_plan(path: Path) -> "Plan":
    from us3l.params.reading import load
    from us3l.pipeline.plan.plan import Plan

    return Plan(load(path), path)


def stage_of(plan: "Plan", study: str, name: str, seed: int, stage: str) -> "RunStage":
    """Return a stage of a run with one of its seeds. Raises UserError where the run has no such stage or seed."""
    from us3l.pipeline.plan.run import RunStage

    run = plan.run(study, name)
    if seed not in run.seeds:
        raise UserError(f"{plan.file}: the study {study} has the seeds {list(run.seeds)}, and no {seed}")
    if stage not in run.stages:
        raise UserError(f"{plan.file}: the run {study} {name} has the stages {', '.join(run.stages)}, and no {stage}")
    return RunStage(run, stage, seed)


def run_address(words: list[str]) -> tuple[str, str, int]:
    """Read STUDY RUN SEED. Raises UserError for other words."""
    if len(words) != 3 or not words[2].isdecimal():
        raise UserError(f"{' '.join(words)}: give STUDY RUN SEED, or without --width the file of one network")
    return words[0], words[1], int(words[2])


def planned_export(plan: "Plan", study: str, name: str, seed: int) -> "ExportJob | None":
    """Return the job of an export of the params file; None where the name is no such export's.

    Raises UserError where it has no such seed.
    """
    from us3l.pipeline.plan.export import ExportJob

    export = plan.exports.get((study, name))
    if export is None:
        return None
    if seed not in export.seeds:
        raise UserError(f"{plan.file}: the export {study} {name} has the seeds {list(export.seeds)}, and no {seed}")
    return ExportJob(export, seed)


def deployed_run(plan: "Plan", study: str, name: str, seed: int, device: "torch.device") -> "DeployedRun":
    """Return a run whose networks are to be deployed. Raises UserError where params.yaml has no such run or seed."""
    from us3l.pipeline.deploy import DeployedRun

    return DeployedRun(plan, stage_of(plan, study, name, seed, plan.run(study, name).stages[-1]).run, seed, device)


def is_made(plan: "Plan", job: "Job", force: bool) -> bool:
    """Tell whether a job's result is up to date and may stay, and print so."""
    from us3l.pipeline.up_to_date import is_up_to_date

    is_made = not force and is_up_to_date(plan, job)
    if is_made:
        print(f"us3l {job.command}: up to date; --force makes it again")
    return is_made


def finish(job: "Job") -> None:
    """Date what a job has read no later than what it has written, whatever the clock did; tell what was written."""
    from us3l.pipeline.dates import OUTDATED, date_no_later_than_now
    from us3l.pipeline.watching.running import tell_outcome

    date_no_later_than_now([*job.inputs, OUTDATED])
    tell_outcome(job)
