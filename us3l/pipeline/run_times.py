"""The run times that jobs ask a scheduler for, from the recorded costs of similar jobs."""

import math
from collections.abc import Iterable
from functools import cached_property

from us3l.pipeline.costs import RecordedCosts
from us3l.pipeline.plan.job import Job

MARGIN = 2.0  # another node may be slower
START = 10  # minutes: three imports of PyTorch or Snakemake from a file system that many nodes read


class RunTimes:
    """Minutes that jobs ask for: `limit` where no record tells of a similar job, and never more."""

    def __init__(self, jobs: Iterable[Job], limit: int | None) -> None:
        self._jobs, self._limit = jobs, limit

    def minutes(self, job: Job, attempt: int) -> int | None:
        """Return the estimate with a margin, which grows with each attempt; None where there is no limit."""
        if self._limit is None:
            return None
        cost = self._recorded.estimate(job)
        return min(self._limit, attempt * (START + math.ceil(MARGIN * 60 * cost.hours))) if cost else self._limit

    @cached_property
    def _recorded(self) -> RecordedCosts:
        return RecordedCosts(self._jobs)
