"""One truth for two tools: Snakemake does the work, and DVC's record follows it.

results/plan.json holds all that a stage of dvc.yaml depends on besides its input files, as the rules have it: so both
tools do again the same, after whatever edit.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from us3l.errors import UserError
from us3l.files import replacing
from us3l.integrity import damage, wrong_texts
from us3l.jobs import Job, jobs
from us3l.plan import Plan, TablePlan, code
from us3l.provenance import fingerprint

PLAN_FILE = Path("results", "plan.json")


def write_plan(plan: Plan) -> None:
    """Write params, seeds and code hash of each stage of dvc.yaml; a file that says the same stays untouched."""
    text = json.dumps(_dependencies(plan), indent=2) + "\n"
    if not PLAN_FILE.is_file() or PLAN_FILE.read_text() != text:
        with replacing(PLAN_FILE) as temporary:
            temporary.write_text(text)


def _dependencies(plan: Plan) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for job in jobs(plan, plan.build):
        facts = {"code": fingerprint(code(job.stage)), "recipe": job.recipe, "seeds": []}
        stages.setdefault(job.dvc_stage, facts)["seeds"] += [] if job.seed is None else [job.seed]
    return stages


def make(plan: Plan, dvc_stage: str) -> NoReturn:
    """Have Snakemake make what is missing or out of date in a stage of dvc.yaml, and nothing else; never returns.

    Damaged files are removed first, or Snakemake would take them for good. Raises UserError for an unknown stage.
    """
    if dvc_stage == "plan":
        _snakemake(["plan"], [PLAN_FILE])
    known = jobs(plan, plan.build)
    mine = [job for job in known if job.dvc_stage == dvc_stage]
    if not mine:
        names = ", ".join(sorted({job.dvc_stage for job in known}))
        raise UserError(f"the studies that params.yaml builds have no stage {dvc_stage!r}; they have: plan, {names}")
    for path, said in (each for job in mine for each in _unfit(job).items()):
        print(f"us3l: {said}: made again", file=sys.stderr)
        path.unlink()
    _snakemake(sorted({job.rule for job in mine}), [path for job in mine for path in job.outputs])


def _unfit(job: Job) -> dict[Path, str]:
    return damage(job) | (wrong_texts(job.of) if isinstance(job.of, TablePlan) else {})


def _snakemake(rules: list[str], targets: list[Path]) -> NoReturn:
    command = [sys.executable, "-m", "snakemake", "--quiet", "host", "progress", "reason", "--cores", "all", "--nolock"]
    os.execv(sys.executable, [*command, "--allowed-rules", *rules, "--", *map(str, targets)])


def commit(plan: Plan, made: Iterable[str]) -> None:
    """After Snakemake made some files, tell DVC of the stages that they complete; of the others it knows already.

    Does nothing where the project has no DVC, or where DVC itself called Snakemake.
    """
    if "DVC_STAGE" in os.environ or not Path(".dvc").is_dir():
        return
    write_plan(plan)
    new = {Path(path) for path in made}
    stages: dict[str, list[Job]] = {}
    for job in jobs(plan, plan.build):
        stages.setdefault(job.dvc_stage, []).append(job)
    complete = [
        name
        for name, members in stages.items()
        if any(not new.isdisjoint(job.outputs) for job in members) and all(job.done for job in members)
    ]
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--no-relink", "--quiet", "plan", *complete]
    if subprocess.run(command).returncode:
        print("us3l: DVC has not recorded these files; `dvc status` tells why, `dvc commit` does it", file=sys.stderr)
