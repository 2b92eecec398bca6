"""Progress bar in a terminal, plain lines in a log file."""

import sys
from types import TracebackType

from rich import progress
from rich.console import Console


class Progress:
    """Shows steps of `total` under `label`; silent unless `visible` (true in the main process only)."""

    def __init__(self, label: str, total: int, visible: bool) -> None:
        self._console = Console(stderr=True, quiet=not visible, soft_wrap=not sys.stderr.isatty(), highlight=False)
        columns = (*progress.Progress.get_default_columns(), progress.TimeElapsedColumn())
        self._bar = progress.Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, steps: int) -> None:
        self._bar.advance(self._task, steps)

    def line(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._console.print(text, markup=False)
