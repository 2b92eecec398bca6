# From params.yaml to tables. `snakemake --cores all` makes the tables of every study that params.yaml builds.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from us3l.data.store import FILES
from us3l.errors import UserError
from us3l.gpus import visible_gpus
from us3l.reading import load
from us3l.plan import TABLE_FORMATS, Plan, code

min_version("9.0")

try:
    PLAN = Plan(load(Path("params.yaml")))
except UserError as error:
    print(f"us3l: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

# Without --resources gpu=N there are as many GPUs as this machine shows; with none, trainings use the CPU.
workflow.global_resources.setdefault("gpu", len(visible_gpus()))

# The rules call the us3l that lies beside this snakemake.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


rule all:
    input:
        PLAN.targets(),


include: "workflow/rules/prepare.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
