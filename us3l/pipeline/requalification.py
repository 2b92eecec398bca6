"""Requalifications: results that today's code, though another, was found by their probe to make again.

The file of one lies beside the records, results/STUDY/requalified/STAGE/RUN/seedN.json, sealed as they are, and counts
for as long as the records and the code are those that it names.
"""

from pathlib import Path
from typing import Any

from us3l.pipeline.code import code
from us3l.pipeline.plan.run import RunStage
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

FOLDER = "requalified"


def requalification_file(job: RunStage) -> Path:
    """Return the path of a job's requalification."""
    return Path("results", job.run.study, FOLDER, job.stage, job.run.name, f"seed{job.seed}.json")


def requalification(job: RunStage) -> dict[str, Any] | None:
    """Return a job's requalification to today's code; None without one that counts."""
    path = requalification_file(job)
    if not path.is_file():
        return None
    try:
        found = read_record(path)
        counts = found["now"] == code(job.stage) and found["records"] == record_seals(job)
    except UserError:
        return None
    return found if counts else None


def record_seals(job: RunStage) -> dict[str, str]:
    """Return the seals of a job's records, by path. Raises UserError where one is missing or damaged."""
    return {str(path): read_record(path)["seal"] for path in job.outputs if path.suffix == ".json"}


def qualified_code(job: RunStage) -> dict[str, str]:
    """Return the code that a job's result stands for: today's, or the one that was found to be equal to it."""
    found = requalification(job)
    return found["was"] if found else code(job.stage)
