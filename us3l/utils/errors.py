"""Exceptions that end a command with one sentence instead of a traceback."""

import signal
from typing import Any

MOST_SHOWN = 100  # characters of a value in a sentence

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # of the user, a scheduler, or a terminal that closes


class UserError(Exception):
    """An error that the user can fix: one sentence says what is wrong, where, and what would be right; exit code 2.

    The sentence is one line, whatever names and values it quotes.
    """

    exit_code = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(in_one_line(sentence))


def shown(value: Any) -> str:
    """Return a value of a file as a sentence shows it: in one line, and not all of a long one."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


class Interrupted(UserError):
    """The end of a training by a signal, with its state saved; the exit code is 128 + the signal, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command continues from here")
        self.exit_code = 128 + number


def about_the_machine(error: OSError | UnicodeEncodeError) -> str:
    """Say what a file, the system or the locale refused, in a sentence; for errors that no other place explains."""
    if isinstance(error, UnicodeEncodeError):
        name = in_one_line(str(error.object))
        return f"{name}: this locale has no such characters ({error.encoding}); set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
    where = f"{in_one_line(str(error.filename))}: " if error.filename else ""
    return f"{where}{error.strerror or in_one_line(str(error))}; mend this, and run the same command again"


def in_one_line(text: str) -> str:
    """Escape line breaks, terminal codes and whatever else does not print as itself."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
