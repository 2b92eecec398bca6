"""Exceptions that end a command with one sentence instead of a traceback."""

import signal
from typing import Any

MOST_SHOWN = 100  # characters of a value in a sentence


class UserError(Exception):
    """An error that the user can fix: one sentence says what is wrong, where, and what would be right; exit code 2."""

    exit_code = 2


def shown(value: Any) -> str:
    """Return a value of a file as a sentence shows it: in one line, and not all of a long one."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


class Interrupted(UserError):
    """The end of a training by a signal, with its state saved; the exit code is 128 + the signal, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command continues from here")
        self.exit_code = 128 + number
