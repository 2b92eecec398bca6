"""Level 1: each file against its seal, the params, the code, its inputs, its source and dvc.lock; without PyTorch."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from us3l.pipeline import seal_cache
from us3l.pipeline.dvc import locked_entries, stale_entries
from us3l.pipeline.dvc_file import DVC_FILE, PLAN_FILE, listed_stages, missing_stages
from us3l.pipeline.integrity import damaged_files
from us3l.pipeline.lineage import Change, changes
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import jobs
from us3l.pipeline.requalification import requalification, requalification_file
from us3l.pipeline.requalify import ProbedJob
from us3l.pipeline.verify.facts import wrong_facts
from us3l.pipeline.verify.selection import Selection
from us3l.pipeline.verify.sources import has_source, missing_source, wrong_sources
from us3l.pipeline.verify.verdict import Verdict
from us3l.utils.atomic import is_temporary

BESIDE = {".gitignore", "README.md"}  # files that DVC or people put beside results


def files_as_recorded(selection: Selection) -> Iterator[Verdict]:
    """Check that each file is intact, and made from the current params, code and inputs; then sources and dvc.lock."""
    seal_cache.forget()
    wrong = [line for job in selection.jobs for line in _wrong_in_job(job)]
    files = sum(len(job.outputs) for job in selection.jobs)
    notes = [_about_requalification(job, found) for job, found in requalified(selection).items()]
    compared = f"files against seals, params, code and inputs ({files})"
    yield Verdict(compared, "bitwise", [*wrong, *unknown_files(selection)], notes)
    if outside := [job for job in selection.jobs if has_source(job)]:
        absent = [sentence for job in outside if (sentence := missing_source(job))]
        compared = f"sources against what they promise ({len(outside)})"
        yield Verdict(compared, "bitwise", wrong_sources(outside), [], absent)
    yield from _recorded_by_dvc(selection)


def _recorded_by_dvc(selection: Selection) -> Iterator[Verdict]:
    stages = {job.dvc_stage for job in selection.jobs}
    locked = stages & locked_entries().keys()
    lacks = len(stages - locked)
    if not locked:
        print(f"level 1  not checked: {_how_to_record(selection, lacks)}")
        return
    notes = [_how_to_record(selection, lacks)] if lacks else []
    wrong = [*_wrong_in_dvc_files(selection, stages), *_wrong_for_dvc(locked)]
    yield Verdict(f"stages against dvc.lock ({len(locked)})", "bitwise", wrong, notes)


def requalified(selection: Selection) -> dict[ProbedJob, dict[str, Any]]:
    """Return the requalifications that count, by the job whose result they keep."""
    probed = [job for job in selection.jobs if isinstance(job, ProbedJob)]
    return {job: found for job in probed if (found := requalification(job))}


def _about_requalification(job: ProbedJob, found: dict[str, Any]) -> str:
    commit = f" at {found['git']['commit'][:10]}" if found["git"] else ""
    return f"us3l {job.command}: code changed since, requalified by probe ({found['promise']}){commit}"


def _wrong_in_job(job: Job) -> list[str]:
    damaged = damaged_files(job)
    wrong = [*damaged.values()]
    for path, changed in changes(job).items():
        if path not in damaged:
            wrong += [_sentence(path, change) for change in changed]
    return wrong if damaged else [*wrong, *wrong_facts(job)]


def _sentence(path: Path, change: Change) -> str:
    what, was, now = change
    return f"{path}: {now}" if what == str(path) else f"{path}: {what} was {was} and is {now}"


def unknown_files(selection: Selection) -> list[str]:
    """Describe the files among the selected results, and in their data sets, that no job of params.yaml makes."""
    data = [job.data.folder for job in selection.jobs if isinstance(job, PrepareJob)]
    present = [path for folder in [*selection.folders, *data] for path in folder.rglob("*") if not path.is_dir()]
    if not present:
        return []
    everything = jobs(selection.plan, selection.plan.studies)
    known = {path for job in everything for path in (*job.outputs, requalification_file(job))} | {PLAN_FILE}
    unknown = sorted(path for path in present if not _is_known(path, known))
    return [f"{path}: no job of {selection.plan.file} makes this file; take it out of there" for path in unknown]


def _is_known(path: Path, known: set[Path]) -> bool:
    return path in known or path.name in BESIDE or is_temporary(path)


def _how_to_record(selection: Selection, lacks: int) -> str:
    is_listed = {job.dvc_stage for job in selection.jobs} <= listed_stages()
    before = "" if is_listed else "`us3l dvc` with the study under build, then "
    return f"dvc.lock lacks {lacks} stages; to record them run {before}`us3l commit`"


def _wrong_in_dvc_files(selection: Selection, stages: set[str]) -> list[str]:
    """Describe the stages that dvc.yaml or results/plan.json have otherwise than params.yaml."""
    plan = selection.plan
    changed = {*missing_stages(plan)} & listed_stages() & stages if DVC_FILE.is_file() else set()
    stale = stale_entries(plan) & stages
    return [
        *(f"{DVC_FILE}: {name} has other files than {plan.file}; `us3l dvc` writes it" for name in sorted(changed)),
        *(f"{PLAN_FILE}: {name} is not as params and code are; `us3l plan --write`" for name in sorted(stale)),
    ]


def _wrong_for_dvc(stages: Iterable[str]) -> list[str]:
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, encoding="utf-8")
    if status.returncode:
        return [f"dvc status: {' '.join(status.stderr.split())}"]
    return [
        f"{stage}: {what}: {path} {state}"
        for stage, reports in json.loads(status.stdout).items()
        if stage in stages
        for report in reports
        for what, paths in (report.items() if isinstance(report, dict) else [(report, {"": ""})])
        for path, state in paths.items()
    ]
