# From params.yaml to tables. `snakemake --cores all` makes the tables of every study that params.yaml builds.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

from us3l.errors import UserError
from us3l.params import load
from us3l.plan import TABLE_FORMATS, Plan, code

min_version("9.0")

PARAMS = Path(config.get("params", "params.yaml"))
try:
    PLAN = Plan(load(PARAMS))
except UserError as error:
    print(f"us3l: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

# Without --resources gpu=N there are as many GPUs as this machine shows; with none, trainings use the CPU.
workflow.global_resources.setdefault("gpu", len(list(Path("/dev").glob("nvidia[0-9]*"))))

# The rules call the us3l that lies beside this snakemake.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


rule all:
    input:
        PLAN.targets(),


include: "workflow/rules/prepare.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
