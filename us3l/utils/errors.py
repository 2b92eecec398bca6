"""The exceptions that end a command in one sentence instead of a traceback."""

import signal


class UserError(Exception):
    """What is wrong, where, and what would be right, in one sentence; the command line exits with code 2."""

    exit_code = 2


class Interrupted(UserError):
    """A signal ended a training, whose state is saved; the exit code tells the signal, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command continues from here")
        self.exit_code = 128 + number
