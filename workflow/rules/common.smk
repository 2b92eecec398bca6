# Inputs of jobs. Records alone determine what is out of date, as for `us3l plan`: neither dates nor Snakemake's memory of
# its own jobs. A job whose results are out of date has one more input, which is newer than they are.
import uuid

from snakemake.exceptions import WorkflowError

from us3l.pipeline.dates import OUTDATED, date_no_later_than_now
from us3l.pipeline.lineage import jobs_to_do

WHERE_TO_LOOK = "; its log is {log}, and `us3l status` shows how far it is"  # the end of each rule's message
JOBS = {job.command: job for job in jobs(PLAN, PLAN.studies)}
TO_DO = jobs_to_do([*JOBS.values()])
REWRITTEN = {path for job in TO_DO for path in job.outputs}
OUTDATED.parent.mkdir(exist_ok=True)
OUTDATED.write_text(uuid.uuid4().hex, encoding="utf-8")  # another content each time: Snakemake compares checksums, too


def inputs_of(command):
    if command not in JOBS:
        raise WorkflowError(f"params.yaml has no `us3l {command}`: `us3l plan` lists its runs and seeds")
    job = JOBS[command]
    is_outdated = job in TO_DO and any(path.is_file() for path in job.outputs)
    files = [path if path in REWRITTEN else ancient(path) for path in job.inputs]
    return [*files, OUTDATED] if is_outdated else files
