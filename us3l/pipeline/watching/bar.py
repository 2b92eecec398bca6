"""What a command tells while it runs: a bar in a terminal, plain lines in a log."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

MINUTE = 60.0  # seconds between two signs of life in a log


class Bar:
    """Shows how many of `total` steps are done, and lines above that; without a total, that something goes on."""

    def __init__(self, label: str, total: int | None) -> None:
        self._console = Console(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False)
        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            *([progress.TaskProgressColumn(), progress.TimeRemainingColumn()] if total else []),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[shown]}", markup=False),
        )
        self._bar = progress.Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(label, total=total, shown="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def is_drawn(self) -> bool:
        return not self._bar.disable

    def advance_to(self, done: int) -> None:
        if self.is_drawn:
            self._bar.update(self._task, completed=done)

    def show(self, text: str) -> None:
        """Show a short text behind the bar."""
        self._bar.update(self._task, shown=text)

    def line(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(text, markup=False)


@contextmanager
def goes_on(label: str) -> Iterator[None]:
    """Show while the block runs that it does: a bar in a terminal, a line each minute in a log."""
    is_over, start = threading.Event(), time.monotonic()

    def tell() -> None:
        while not is_over.wait(MINUTE):
            if not bar.is_drawn:
                bar.line(f"{label}: {(time.monotonic() - start) / MINUTE:.0f} min")

    with Bar(label, None) as bar:
        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
