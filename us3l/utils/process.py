"""What a process of the command line sets up before it does anything: its standard streams, and its end by Ctrl-C."""

import locale
import os
import signal
import sys
from contextlib import suppress
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from typing import NoReturn, TextIO, cast

from us3l.utils.errors import UserError


class Output(TextIOWrapper):
    """Standard output, whose failure ends the process: quietly where nobody reads any more, else with one sentence."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            _end(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            _end(error)


class Messages(TextIOWrapper):
    """Standard error: a message that cannot be told does not end the work that it tells of."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def set_up() -> None:
    """Give the process streams that can fail and encode anything, and end it with 128 + SIGINT after a Ctrl-C.

    A stream that is closed gets a file that cannot be written to and has nothing to read: else the next file that is
    opened, such as a database, would take its number, and all that is printed.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or TextIOWrapper(BufferedReader(FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _open(1, Output, sys.stdout)
    sys.stderr = _open(2, Messages, sys.stderr)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell lets its background jobs ignore it
        signal.signal(signal.SIGINT, lambda number, _: sys.exit(128 + number))


def _open(number: int, kind: type[TextIOWrapper], former: TextIO | None) -> TextIOWrapper:
    """Open a stream with the encoding of the terminal; what that lacks is written as an escape sequence."""
    encoding = former.encoding if former else locale.getencoding()
    file, at_once = FileIO(number, "wb", closefd=False), bool(os.environ.get("PYTHONUNBUFFERED"))
    stream = cast(BufferedWriter, file) if at_once else BufferedWriter(file)
    by_line = number == 2 or os.isatty(number)
    return kind(stream, encoding, "backslashreplace", line_buffering=by_line, write_through=at_once)


def _end(error: OSError) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the interpreter's own flush at its end
    if isinstance(error, BrokenPipeError):
        sys.exit(128 + signal.SIGPIPE)
    print(f"us3l: standard output: not writable: {error.strerror}; send it where there is room for it", file=sys.stderr)
    sys.exit(UserError.exit_code)
