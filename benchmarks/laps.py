"""Where the time within a turn goes, without making a GPU wait."""

from itertools import pairwise
from typing import Any

import torch

from benchmarks.compare import CLOCKS, clock
from benchmarks.setting import Setting


class Laps:
    """Called at the end of each lap."""

    def __init__(self, setting: Setting) -> None:
        self.on_gpu, self.clock = setting.device.type == "cuda", CLOCKS[clock(setting)]
        self.marks: list[Any] = []

    def __call__(self, *_: Any) -> None:
        self.marks.append(self._event() if self.on_gpu else self.clock())

    def seconds(self) -> list[float]:
        """From each mark to the next one; the marks are gone then."""
        marks, self.marks = self.marks, []
        if not self.on_gpu:
            return [end - start for start, end in pairwise(marks)]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairwise(marks)]

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
