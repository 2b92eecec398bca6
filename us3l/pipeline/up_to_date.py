"""Results that are up to date: neither they nor what they rest on has changed since; without PyTorch."""

from us3l.pipeline.integrity import edited_texts
from us3l.pipeline.lineage import changes, jobs_to_do
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs, jobs_behind


def is_up_to_date(plan: Plan, job: Job) -> bool:
    """Tell whether running a job again would change nothing: `us3l plan` does not list it, and its files are whole.

    Raises UserError where a table's evaluations cannot be read.
    """
    if changes(job):
        return False
    before = jobs_behind(job, jobs(plan, plan.studies))
    return not jobs_to_do(before) and not edited_texts(job)
