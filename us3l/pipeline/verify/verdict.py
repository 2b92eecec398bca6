"""A verdict of `us3l verify`, as it is printed."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from us3l.utils.errors import in_one_line

SHOWN = 20  # lines of one kind in one verdict


@dataclass(frozen=True)
class Verdict:
    """A comparison, how exactly it must hold (bitwise, within rounding, statistical), and what it found.

    wrong: what differs; unchecked: what could not be compared, and why; notes: what may be so.
    """

    compared: str
    promise: str
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        if self.wrong:
            return f"{len(self.wrong)} DIFFER"
        return "not checked" if self.unchecked else "holds"


def print_verdicts(level: int, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Print the verdicts of a level as they come, each with the seconds that it took, and yield them."""
    start = time.monotonic()
    for verdict in verdicts:
        seconds, start = time.monotonic() - start, time.monotonic()
        print(f"level {level}  {verdict.outcome}  {verdict.promise}: {verdict.compared}, {seconds:.1f} s")
        for lines in (verdict.wrong, verdict.unchecked, verdict.notes):
            _print_some(lines)
        yield verdict


def _print_some(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"         {in_one_line(line)}")
    if len(lines) > SHOWN:
        print(f"         and {len(lines) - SHOWN} more")
