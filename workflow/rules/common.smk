# Inputs and run times of jobs. Records alone determine what is out of date, as for `us3l plan`: neither dates nor
# Snakemake's memory of its own jobs. A job whose results are out of date has one more input, which is newer than they are.
# A Snakemake that another one has started for one job makes that job, whatever the records say.
from snakemake.exceptions import WorkflowError

from us3l.pipeline.dates import OUTDATED, date_no_later_than_now, write_outdated
from us3l.pipeline.lineage import jobs_to_do
from us3l.pipeline.run_times import RunTimes
from us3l.pipeline.slurm import require_slurm

WHERE_TO_LOOK = "; its log is {log}, and `us3l status` shows how far it is"  # the end of each rule's message
# Snakemake deletes a job's log before the next attempt; by its other name, to which each attempt adds, it stays.
KEEP_LOG = "exec >> {log}.kept 2>&1; ln -f {log}.kept {log}; "
JOBS = {job.command: job for job in jobs(PLAN, PLAN.studies)}
TO_DO = jobs_to_do([*JOBS.values()]) if workflow.is_main_process else {}
REWRITTEN = {path for job in TO_DO for path in job.outputs}
RUN_TIMES = RunTimes(JOBS.values(), RUN_TIME_LIMIT)
if workflow.is_main_process:
    write_outdated([PLAN_FILE, *REWRITTEN])


def inputs_of(command):
    if command not in JOBS:
        raise WorkflowError(f"params.yaml has no `us3l {command}`: `us3l plan` lists its runs and seeds")
    job = JOBS[command]
    is_outdated = job in TO_DO and any(path.is_file() for path in job.outputs)
    files = [path if path in REWRITTEN else ancient(path) for path in job.inputs]
    return [*files, OUTDATED] if is_outdated else files


def minutes_of(command, attempt):
    return RUN_TIMES.minutes(JOBS[command], attempt)


def ask_slurm():
    settings = workflow.executor_settings
    jobs_to_submit = [job.resources for job in workflow.dag.needrun_jobs() if not job.is_local]
    with ends_in_a_sentence():
        require_slurm(settings.status_command, settings.init_seconds_before_status_checks, jobs_to_submit)
