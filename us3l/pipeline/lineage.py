"""Lineage: what the files of a job say they were made from, held against what is there now. Nothing needs PyTorch."""

import json
from pathlib import Path
from typing import Any

from us3l.params.sampling import width_label
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.plan.jobs import Job
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.provenance import differences, identify
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

Change = tuple[str, Any, Any]  # what has changed, what it was, what it is now
Changes = dict[Path, list[Change]]  # by the file that tells of it
ABSENT = "absent"


def identities(job: Job) -> dict[Path, dict[str, Any]]:
    """For each record that a job writes, what it would say now about what determines the result."""
    match job.of:
        case DatasetPlan() as data:
            return {data.record: identify(job.stage, job.recipe)}
        case RunPlan() as run:
            return _identities_of_run(job, run)
        case TablePlan() as table:
            made_from = {str(path): _said(path, "seal") for path in table.inputs_there}
            return {table.file("json"): identify(job.stage, job.recipe, made_from=made_from)}


def _identities_of_run(job: Job, run: RunPlan) -> dict[Path, dict[str, Any]]:
    seed = job.seed
    origin = {"data": _said(run.data.folder / "meta.json", "sha256"), "seed": seed}
    if job.stage == "pretrain":
        if run.source:
            origin["teacher"] = _said(run.source.training(seed), "checkpoint")
        return {run.training(seed): identify(job.stage, job.recipe, **origin)}
    origin["checkpoint"] = _said(run.training(seed), "checkpoint")
    if job.stage == "calibrate":
        return {run.calibration(seed): identify(job.stage, job.recipe, **origin)}
    networks = _said(run.calibration(seed), "networks")
    identity = identify(job.stage, job.recipe, **origin)
    return {
        run.evaluation(seed, width): {
            **identity,
            "width": width,
            "network": networks.get(width_label(width), ABSENT) if isinstance(networks, dict) else ABSENT,
        }
        for width in run.widths
    }


def _said(path: Path, key: str) -> Any:
    """One entry of a record, whether or not its seal holds."""
    try:
        return json.loads(path.read_text())[key]
    except (OSError, ValueError, KeyError, TypeError):
        return ABSENT


def changes(job: Job) -> Changes:
    """For each file that is absent, or whose record does not tell of today's params, code and inputs: what differs."""
    found: Changes = {path: [(str(path), "there", ABSENT)] for path in job.outputs if not path.is_file()}
    for path, now in identities(job).items():
        if path not in found and (changed := _changes(path, now)):
            found[path] = changed
    return found


def _changes(path: Path, now: dict[str, Any]) -> list[Change]:
    try:
        made = read_record(path)
    except UserError:
        return [(str(path), "whole", "damaged")]
    return differences({key: made.get(key, ABSENT) for key in now}, now)


def work(jobs: list[Job]) -> dict[Job, Changes]:
    """Of jobs in the order of their files: those that would run, each with what has changed.

    Nothing has changed for a job that would run only because one before it does.
    """
    found: dict[Job, Changes] = {}
    made_again: set[Path] = set()
    for job in jobs:
        changed = changes(job)
        if changed or not made_again.isdisjoint(job.inputs):
            found[job] = changed
            made_again.update(job.outputs)
    return found
