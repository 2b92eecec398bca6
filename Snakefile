# From params.yaml to tables. `snakemake --cores all` makes all files of every study that params.yaml builds.
import os
import sys
from dataclasses import replace
from pathlib import Path

from snakemake.utils import min_version

from us3l.data.store import FILES
from us3l.utils import fork_server
from us3l.utils.gpus import visible_gpus
from us3l.pipeline.dvc import UNRECORDED, commit_to_dvc, expect_results, is_plan_written
from us3l.pipeline.dvc_file import PLAN_FILE
from us3l.pipeline.overview import Overview
from us3l.pipeline.plan.export import ExportJob
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TABLE_FORMATS
from us3l.pipeline.sentences import ends_in_a_sentence
from us3l.pipeline.watching.logs import require_log_folder
from us3l.params.protocols.protocol import KINDS
from us3l.params.reading import load

min_version("9.0")

with ends_in_a_sentence():
    PLAN = Plan(load(Path("params.yaml")))
    require_log_folder()

# Without --resources gpu=N, jobs on this machine use all of its GPUs; without a GPU, they use the CPU.
if workflow.is_main_process and workflow.resource_settings.nodes is None:
    workflow.global_resources.setdefault("gpu", len(visible_gpus()))

# The most minutes that a job asks a scheduler for: the profile's default. What runs inside the job reads no records.
DEFAULTS = workflow.resource_settings.default_resources or {}
RUN_TIME_LIMIT = DEFAULTS["runtime"].value if workflow.is_main_process and "runtime" in DEFAULTS else None

# The rules call the us3l that is installed beside this snakemake.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


# The templates in workflow/report ask it, when a report is made.
config["overview"] = Overview(PLAN)


report: "workflow/report/workflow.rst"


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
    elif workflow.executor_plugin.name == "slurm":
        ask_slurm()
    expect_results()


onsuccess:
    commit_to_dvc([path for job in workflow.dag.finished_jobs for path in job.output])


onerror:
    commit_to_dvc([path for job in workflow.dag.finished_jobs for path in job.output])
