# Inputs of jobs. Records alone determine what is out of date, as for `us3l plan`: neither dates nor Snakemake's memory of
# its own jobs. A job whose results are out of date has one more input, which is newer than they are.
import uuid

from us3l.pipeline.lineage import jobs_to_do

REWRITTEN = {path for job in jobs_to_do(jobs(PLAN, PLAN.studies)) for path in job.outputs}
OUTDATED = Path(".snakemake", "outdated")
OUTDATED.write_text(uuid.uuid4().hex)  # another content each time: Snakemake compares checksums, too


def inputs_of(job):
    is_outdated = any(path in REWRITTEN and path.is_file() for path in job.outputs)
    files = [path if path in REWRITTEN else ancient(path) for path in job.inputs]
    return [*files, OUTDATED] if is_outdated else files
