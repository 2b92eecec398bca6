"""A memory of checked files, so that the seal of a large file is computed once for as long as the file is the same.

A file is the same while its inode, size and times are: whatever writes to it, or puts another in its place, changes
the time of its last status change, which no program can set.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from us3l.utils.errors import UserError
from us3l.utils.reading import parse_json

CACHE = Path(".us3l", "seals.sqlite")
SETTLED = 1.0  # seconds after which a file that changes again has another time


def checked(files: Sequence[Path], check: Callable[[], str]) -> str:
    """Return what `check` returns of files, or raise the UserError that it raises, as of the last time it was called.

    check: reads the files; it is called if one of them has changed since.
    """
    key, stamp, is_settled = str(files[0]), *_stamp(files)
    if known := _recall(key, stamp):
        seal, damage = known
    else:
        seal, damage = _outcome(check)
        if is_settled:
            _run("REPLACE INTO checks VALUES (?, ?, ?)", key, stamp, json.dumps([seal, damage]))
    if damage:
        raise UserError(damage)
    return seal


def forget() -> None:
    """Forget what was checked, so that every file is read again: whoever forges a file may forge the memory, too."""
    _memory.cache_clear()
    with suppress(OSError):
        CACHE.unlink()


def _recall(key: str, stamp: str) -> tuple[str, str] | None:
    """Return seal and damage; None where they are not known, or the memory holds something else."""
    try:
        [(text,)] = _run("SELECT outcome FROM checks WHERE file = ? AND stamp = ?", key, stamp)
        seal, damage = parse_json(text.encode())
    except (ValueError, TypeError, AttributeError):
        return None
    return (seal, damage) if isinstance(seal, str) and isinstance(damage, str) else None


def _outcome(check: Callable[[], str]) -> tuple[str, str]:
    try:
        return check(), ""
    except UserError as error:
        return "", str(error)


def _stamp(files: Sequence[Path]) -> tuple[str, bool]:
    """Return what changes with a file's content, and whether the last change is long enough ago."""
    states = [path.stat() for path in files]
    stamp = [[state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for state in states]
    return json.dumps(stamp), max(state.st_ctime for state in states) < time.time() - SETTLED


def _run(statement: str, *values: str) -> list[tuple[str]]:
    """Return the rows of a statement; none where the memory is damaged or its disk full: it only saves time."""
    try:
        return _memory(CACHE.absolute()).execute(statement, values).fetchall()
    except sqlite3.Error:
        return []


@cache
def _memory(path: Path) -> sqlite3.Connection:
    """Open the memory at `path`; where it is damaged or cannot be written to, one that ends with this process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(str(path))
    except (OSError, sqlite3.Error):
        return _connect(":memory:")


def _connect(database: str) -> sqlite3.Connection:
    memory = sqlite3.connect(database, timeout=60, isolation_level=None)
    memory.execute("PRAGMA synchronous = OFF")  # a power cut may damage it, and then files are read again
    memory.execute("CREATE TABLE IF NOT EXISTS checks (file PRIMARY KEY, stamp, outcome)")
    for probe in ("BEGIN IMMEDIATE", "SELECT file, stamp, outcome FROM checks LIMIT 1", "ROLLBACK"):
        memory.execute(probe).fetchall()
    return memory
