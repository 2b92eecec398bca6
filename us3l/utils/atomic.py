"""Files that are either complete or missing."""

import errno
import fcntl
import os
import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from urllib.parse import quote

from us3l.utils.errors import UserError

PREFIX = f".us3l-{quote(platform.node(), safe='')}-"  # of temporary files; locks may not reach other machines
TEMPORARY = re.compile(r"\.us3l-.+-[0-9a-f]{8}\.tmp")  # the names of those of all machines


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well and the bytes are on disk.

    Raises UserError where it cannot be written. After any error `path` keeps its old content and the temporary file is
    removed; those of killed processes are removed by the next that writes into the folder.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary, file = _locked_file(folder)
        try:
            with file:
                yield temporary
                _sync(temporary)
                temporary.replace(path)
            _sync(folder)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(f"{path}: the disk is full; free some space and run the same command again") from error
        if isinstance(error, IsADirectoryError):
            raise UserError(f"{path}: not writable: it is a folder; move it away") from error
        raise UserError(
            f"{path}: not writable: {error.strerror}; make {folder} a folder that you may write to"
        ) from error


def is_temporary(path: Path) -> bool:
    """Tell whether a file is one that is being written, here or on another machine."""
    return bool(TEMPORARY.fullmatch(path.name))


def require_folder(folder: Path, remedy: str) -> None:
    """Raise UserError where there is no such folder; `remedy` says what would be right."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {remedy}")


def _locked_file(folder: Path) -> tuple[Path, BufferedWriter]:
    """Create a temporary file and lock it for as long as this process has it open: the kernel unlocks it at its end."""
    path = folder / f"{PREFIX}{uuid.uuid4().hex[:8]}.tmp"
    file = path.open("xb")
    with suppress(OSError):  # of a file system without locks, whose leftovers stay
        fcntl.flock(file, fcntl.LOCK_EX)
    if path.exists():
        return path, file
    file.close()  # another process took it for a leftover before it was locked
    return _locked_file(folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that no process has locked: those that wrote them are dead."""
    for path in folder.glob(f"{PREFIX}*.tmp"):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
