"""Dates after the clock was set back: Snakemake deletes what a job has made where an input is of a later date."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

OUTDATED = Path(".snakemake", "outdated")  # an input of all jobs whose results are out of date


def date_no_later_than_now(files: Iterable[Path]) -> None:
    """Give files of the future the present date: what is made of them goes by their content, not by their dates."""
    for path in files:
        with suppress(OSError):  # it is not there, or another user's
            if path.stat().st_mtime > time.time():
                os.utime(path)
