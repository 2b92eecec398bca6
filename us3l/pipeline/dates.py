"""Dates: Snakemake makes what is older than its inputs, and deletes what a job has made where an input is newer."""

import os
import time
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

OUTDATED = Path(".snakemake", "outdated")  # an input of all jobs whose results are out of date
LATER = 10_000_000  # nanoseconds, which file systems tell apart


def write_outdated(results: Collection[Path]) -> None:
    """Write OUTDATED, with a date after results that are out of date, and before all that jobs make from now on.

    So a job that has just ended keeps its results, though another Snakemake looks what is out of date.
    """
    date_no_later_than_now(results)
    newest = 0
    for path in results:
        with suppress(OSError):  # it is missing
            newest = max(newest, path.stat().st_mtime_ns)
    OUTDATED.parent.mkdir(exist_ok=True)
    draft = OUTDATED.with_name(f"outdated.{os.getpid()}")
    draft.write_text(uuid.uuid4().hex, encoding="utf-8")  # another content: Snakemake compares checksums, too
    os.utime(draft, ns=(newest + LATER, newest + LATER))
    draft.replace(OUTDATED)


def date_no_later_than_now(files: Iterable[Path]) -> None:
    """Give files of the future the present date: what is made of them goes by their content, not by their dates."""
    for path in files:
        with suppress(OSError):  # it is not there, or another user's
            if path.stat().st_mtime > time.time():
                os.utime(path)
