"""Timing of the parts of a turn, without making a GPU wait."""

from itertools import pairwise
from typing import Any

import torch

from benchmarks.compare import CLOCKS, clock
from benchmarks.setting import Setting


class Laps:
    """A stopwatch that is called at the end of each lap."""

    def __init__(self, setting: Setting) -> None:
        self.on_gpu, self.clock = setting.device.type == "cuda", CLOCKS[clock(setting)]
        self.marks: list[Any] = []

    def __call__(self, *_: Any) -> None:
        self.marks.append(self._event() if self.on_gpu else self.clock())

    def seconds(self) -> list[float]:
        """Return the seconds from each mark to the next, and delete the marks."""
        marks, self.marks = self.marks, []
        if not self.on_gpu:
            return [end - start for start, end in pairwise(marks)]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairwise(marks)]

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
