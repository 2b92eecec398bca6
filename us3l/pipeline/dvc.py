"""DVC beside Snakemake: Snakemake does the work, and DVC records it.

results/plan.json holds the params and code hashes that a stage of dvc.yaml depends on besides its input files. The
rules of the Snakefile have the same ones, so that an edit makes the same stages out of date in both tools.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from us3l.pipeline.dvc_file import (
    DVC_FILE,
    LOCK_FILE,
    PLAN_FILE,
    dvc_stages,
    listed_stages,
    missing_stages,
    read_stages,
)
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.integrity import edited_texts
from us3l.pipeline.lineage import jobs_to_do
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.requalification import qualified_code
from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError
from us3l.utils.reading import read_json


def write_plan(plan: Plan) -> None:
    """Write params, seeds and code hash of each stage of dvc.yaml; give a file of the same content a new date."""
    text = _text(plan)
    if _is_written(text):
        PLAN_FILE.touch()
    else:
        with atomic_write(PLAN_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")


def is_plan_written(plan: Plan) -> bool:
    """Tell whether results/plan.json has the present content."""
    return _is_written(_text(plan))


def stale_entries(plan: Plan) -> set[str]:
    """Name the stages that results/plan.json has with other params, seeds or code; all of an unreadable file's."""
    entries = _entries(dvc_stages(plan))
    try:
        written = read_json(PLAN_FILE)
    except FileNotFoundError:
        return set()
    except (OSError, ValueError):
        return {*entries}
    return {name for name in entries if not isinstance(written, dict) or written.get(name) != entries[name]}


def _is_written(text: str) -> bool:
    expected = text.encode()
    return PLAN_FILE.is_file() and PLAN_FILE.stat().st_size == len(expected) and PLAN_FILE.read_bytes() == expected


def _text(plan: Plan) -> str:
    return json.dumps(_entries(dvc_stages(plan)), indent=2) + "\n"


def _entries(stages: dict[str, list[Job]]) -> dict[str, Any]:
    return {
        name: {
            "code": _code_entry(stage_jobs),
            "params": stage_jobs[0].stage_params,
            "seeds": [job.seed for job in stage_jobs if job.seed is not None],
        }
        for name, stage_jobs in stages.items()
    }


def _code_entry(stage_jobs: list[Job]) -> str:
    """Hash the code that the results of a stage stand for; requalified ones keep the code that made them."""
    qualified = [qualified_code(job) for job in stage_jobs]
    distinct = [each for index, each in enumerate(qualified) if each not in qualified[:index]]
    return fingerprint(distinct[0] if len(distinct) == 1 else distinct)


def make(plan: Plan, dvc_stage: str) -> NoReturn:
    """Replace this process by Snakemake, which makes what is missing or out of date in one stage of dvc.yaml.

    Edited texts of tables are deleted first, because their records do not tell of them.
    Raises UserError for an unknown stage.
    """
    if dvc_stage == "plan":
        PLAN_FILE.unlink(missing_ok=True)
        _snakemake(["plan"], [PLAN_FILE])
    members = dvc_stages(plan)
    if dvc_stage not in members:
        names = ", ".join(["plan", *members])
        raise UserError(f"the studies that params.yaml builds have no stage {dvc_stage!r}; they have: {names}")
    stage_jobs = members[dvc_stage]
    for job in stage_jobs:
        for path, problem in edited_texts(job).items():
            print(f"us3l: {problem}: made again", file=sys.stderr)
            path.unlink()
    _snakemake(sorted({job.rule for job in stage_jobs}), [path for job in stage_jobs for path in job.outputs])


def _snakemake(rules: list[str], targets: list[Path]) -> NoReturn:
    command = [sys.executable, "-m", "snakemake", "--quiet", "host", "progress", "reason", "--cores", "all"]
    os.execv(sys.executable, [*command, "--allowed-rules", *rules, "--", *map(str, targets)])


UNRECORDED = Path(".snakemake", "unrecorded")  # there while Snakemake makes what DVC has not recorded yet
EVERYTHING = "everything"  # its content after one that was killed


def expect_results() -> None:
    """Note that Snakemake makes results, so that what a killed one has left is recorded by the next."""
    if _has_dvc():
        UNRECORDED.write_text(EVERYTHING if UNRECORDED.is_file() else "", encoding="utf-8")


def commit_to_dvc(made: Iterable[str]) -> None:
    """Run `us3l commit` on the files that Snakemake made, in a process that reads params and code as they are now.

    After a Snakemake that was killed, any file may be new. Do nothing if the project has no DVC, or if DVC itself
    called Snakemake.
    """
    if not _has_dvc():
        return
    was_killed = UNRECORDED.is_file() and UNRECORDED.read_text(encoding="utf-8") == EVERYTHING
    if "DVC_STAGE" in os.environ:
        is_recorded = not was_killed
    else:
        files = "" if was_killed else "\n".join(made)
        done = subprocess.run([sys.executable, "-m", "us3l", "commit"], input=files, encoding="utf-8")
        is_recorded = done.returncode == 0
    if is_recorded:
        UNRECORDED.unlink(missing_ok=True)


def _has_dvc() -> bool:
    return Path(".dvc").is_dir() and DVC_FILE.is_file()


def commit(plan: Plan, made: Iterable[str]) -> None:
    """Record in DVC the stages that have new files, or another entry in the plan, and are undamaged and up to date.

    Without the files that were made, any stage may have new ones.

    Raises UserError where the project has no DVC, or where DVC refuses.
    """
    if not _has_dvc():
        raise UserError("no .dvc and dvc.yaml here; run the command at the top of a project that DVC tracks")
    write_plan(plan)
    members, locked, missing = dvc_stages(plan), locked_entries(), missing_stages(plan)
    entries = _entries(members)
    to_do = jobs_to_do([job for stage_jobs in members.values() for job in stage_jobs])
    new = {Path(path) for path in made}
    current = [name for name, stage_jobs in members.items() if to_do.keys().isdisjoint(stage_jobs)]
    changed = [
        name
        for name in current
        if not new or locked.get(name) != entries[name] or any(not new.isdisjoint(job.outputs) for job in members[name])
    ]
    if unlisted := [name for name in changed if name in missing]:
        print(f"us3l: dvc.yaml lacks {', '.join(unlisted)}; `us3l dvc` writes them into it", file=sys.stderr)
    listed = [name for name in changed if name not in missing]
    may_all = listed and not missing and listed_stages() == {"plan", *current}  # DVC is faster with all than with some
    _record([str(DVC_FILE)] if may_all else ["plan", *dvc_targets(listed, members)])


def _record(targets: list[str]) -> None:
    """Have DVC record stages of dvc.yaml, and tell how long that takes."""
    start = time.monotonic()
    print("us3l: DVC records what was made …", file=sys.stderr)
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--no-relink", *targets]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    if done.returncode:
        reason = "".join(done.stdout.splitlines()[-1:])
        raise UserError(f"DVC has not recorded what was made; mend this and run `us3l commit`: {reason}")
    print(f"us3l: recorded in {LOCK_FILE}, {time.monotonic() - start:.1f} s", file=sys.stderr)


def dvc_targets(stages: list[str], everything: Iterable[str]) -> list[str]:
    """Name the stages, or a whole group at once, because DVC reads dvc.lock again for each target."""
    sizes = Counter(name.partition("@")[0] for name in everything)
    groups: dict[str, list[str]] = {}
    for name in stages:
        groups.setdefault(name.partition("@")[0], []).append(name)
    return [each for group, names in groups.items() for each in ([group] if len(names) == sizes[group] else names)]


def locked_entries() -> dict[str, Any]:
    """Return each stage's entry of the plan as dvc.lock recorded it. Raises UserError where that is not readable."""
    stages = read_stages(LOCK_FILE).get("stages", {})
    of_plan = {name: stage.get("params", {}).get(str(PLAN_FILE)) for name, stage in stages.items()}
    return {name: params.get(name) if isinstance(params, dict) else None for name, params in of_plan.items()}
