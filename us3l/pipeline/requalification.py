"""Requalifications: results that today's code, though another, was found by their probe to make again.

The file of one lies beside the records, results/STUDY/requalified/STAGE/RUN/seedN.json, sealed as they are, and counts
for as long as the records and the code are those that it names. That of a data set is
results/requalified/prepare/NAME.json, since DVC tracks the folder of the data set.
"""

from pathlib import Path
from typing import Any

from us3l.pipeline.plan.job import Job
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

FOLDER = "requalified"


def requalification_file(job: Job) -> Path:
    """Return the path of a job's requalification."""
    *study, name = job.names
    file = f"{name}.json" if job.seed is None else f"{name}/seed{job.seed}.json"
    return Path("results", *study, FOLDER, job.stage, file)


def requalification(job: Job) -> dict[str, Any] | None:
    """Return a job's requalification to today's code; None without one that counts."""
    path = requalification_file(job)
    if not path.is_file():
        return None
    try:
        found = read_record(path)
        counts = found["now"] == job.code and found["records"] == record_seals(job)
    except UserError:
        return None
    return found if counts else None


def record_seals(job: Job) -> dict[str, str]:
    """Return the seals of a job's records, by path. Raises UserError where one is missing or damaged."""
    return {str(path): read_record(path)["seal"] for path in job.records}


def qualified_code(job: Job) -> dict[str, str]:
    """Return the code that a job's result stands for: today's, or the one that was found to be equal to it."""
    found = requalification(job)
    return found["was"] if found else job.code
