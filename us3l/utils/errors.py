"""Exceptions that end a command with one sentence instead of a traceback."""

import signal


class UserError(Exception):
    """An error that the user can fix: one sentence says what is wrong, where, and what would be right; exit code 2."""

    exit_code = 2


class Interrupted(UserError):
    """The end of a training by a signal, with its state saved; the exit code is 128 + the signal, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command continues from here")
        self.exit_code = 128 + number
