"""The command line where something is not as usual: standard streams, the file system, the locale, the terminal.

A process that has imported us3l reads pairs of a circumstance and a command line as JSON, and forks one process for
each, of which it makes what a new interpreter would be in that circumstance.
"""

import errno
import gc
import io
import json
import locale
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from project import Project

from us3l.__main__ import main

STREAMS = ("stdin", "stdout", "stderr")
Outcome = tuple[int, str, str]  # exit code, output and errors


def outcomes(project: Project, calls: Sequence[tuple[str, str]]) -> list[Outcome]:
    """Run each command line in its circumstance, one after the other."""
    (project.folder / "calls.json").write_text(json.dumps(calls))
    program = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import circumstance; circumstance.serve()"
    (project.folder / "circumstances.py").write_text(program)
    found = project.must("circumstances")
    return [(code, printed, errors) for code, printed, errors in json.loads(found.splitlines()[-1])]


def close(*numbers: int) -> None:
    for number in numbers:
        os.close(number)
        setattr(sys, STREAMS[number], None)


def fill(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def stop_reading(number: int) -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, number)


def speak_ascii() -> None:
    """What LC_ALL=C means, but for the encoding of file names."""
    locale.setlocale(locale.LC_ALL, "C")
    open_streams("ascii", "surrogateescape")


def mount_read_only() -> None:
    """Refuse to write into the current folder, as the kernel would if it was mounted so."""
    here = os.getcwd()

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        path = arguments[0] if arguments else None
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(here) or path == ":memory:":
            return
        is_there = os.path.lexists(path)
        writes = {
            "open": lambda: arguments[2] & (os.O_WRONLY | os.O_RDWR) or (arguments[2] & os.O_CREAT and not is_there),
            "os.mkdir": lambda: not is_there,
            **dict.fromkeys(("os.rename", "os.remove", "os.rmdir", "os.utime", "os.truncate"), lambda: is_there),
            "sqlite3.connect": lambda: True,
        }
        if event in writes and writes[event]():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    sys.addaudithook(refuse)


def narrow() -> None:
    os.environ["COLUMNS"] = "40"


CIRCUMSTANCES: dict[str, Callable[[], None]] = {
    "as usual": lambda: None,
    "closed stdin": lambda: close(0),
    "closed stdout": lambda: close(1),
    "all closed": lambda: close(0, 1, 2),
    "full stdout": lambda: fill(1),
    "full stderr": lambda: fill(2),
    "unread stdout": lambda: stop_reading(1),
    "unread stderr": lambda: stop_reading(2),
    "read-only folder": mount_read_only,
    "C locale": speak_ascii,
    "40 columns": narrow,
}


def open_streams(encoding: str, errors: str) -> None:
    """Open the standard streams as a new interpreter does."""
    files = [io.FileIO(number, mode, closefd=False) for number, mode in enumerate("rww")]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(files[0]), encoding, errors)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(files[1]), encoding, errors)
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(files[2]), encoding, "backslashreplace", line_buffering=True)


def outcome(circumstance: str, command: str) -> Outcome:
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
        if (pid := os.fork()) == 0:
            run(circumstance, command, output.fileno(), errors.fileno())
        _, status = os.waitpid(pid, 0)
        texts = [Path(file.name).read_text(encoding="utf-8") for file in (output, errors)]
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def run(circumstance: str, command: str, output: int, errors: int) -> NoReturn:
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), output, errors)):
        os.dup2(file, number)
    open_streams("utf-8", "strict")
    sys.argv = ["us3l", *command.split(" ")]
    code: object = 1
    try:
        CIRCUMSTANCES[circumstance]()
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):  # an interpreter would tell of it, and exit with 120
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)


def serve() -> None:
    """Run the command lines of calls.json, and print what came of them as JSON."""
    gc.freeze()
    calls = json.loads(Path("calls.json").read_text())
    print(json.dumps([outcome(*call) for call in calls]))
