# From params.yaml to tables. `snakemake --cores all` makes all files of every study that params.yaml builds.
import os
import sys
from dataclasses import replace
from pathlib import Path

from snakemake.utils import min_version

from us3l.data.store import FILES
from us3l.utils import fork_server
from us3l.utils.errors import UserError
from us3l.utils.gpus import visible_gpus
from us3l.pipeline.dvc import commit_to_dvc, is_plan_written
from us3l.pipeline.dvc_file import PLAN_FILE
from us3l.pipeline.plan.export import ExportJob
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TABLE_FORMATS
from us3l.pipeline.watching.logs import require_log_folder
from us3l.params.protocols.protocol import KINDS
from us3l.params.reading import load

min_version("9.0")

try:
    PLAN = Plan(load(Path("params.yaml")))
    require_log_folder()
except UserError as error:
    print(f"us3l: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

# Without --resources gpu=N, all GPUs of this machine are used; without a GPU, trainings use the CPU.
workflow.global_resources.setdefault("gpu", len(visible_gpus()))

# The rules call the us3l that is installed beside this snakemake.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


run_of = lambda wildcards: PLAN.run(wildcards.study, wildcards.run)


include: "workflow/rules/common.smk"


rule all:
    input:
        PLAN_FILE,
        [path for job in jobs(PLAN, PLAN.build) for path in JOBS[job.command].outputs],
    message:
        "All files are up to date"


include: "workflow/rules/plan.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"


onstart:
    if workflow.local_exec:
        fork_server.start()


onsuccess:
    commit_to_dvc([path for job in workflow.dag.finished_jobs for path in job.output])


onerror:
    commit_to_dvc([path for job in workflow.dag.finished_jobs for path in job.output])
