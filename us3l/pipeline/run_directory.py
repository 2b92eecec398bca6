"""The directory of an unfinished training's state: held by one training at a time, and removed when that is done."""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from us3l.utils.errors import UserError


@contextmanager
def run_directory(folder: Path) -> Iterator[Path]:
    """Hold `folder`, after waiting for any other process that holds it; remove it when the block ends without an error.

    Raises UserError where the folder cannot be made.
    """
    lock = _lock(folder)
    try:
        yield folder
        done = folder.with_name(f".{folder.name}.{os.getpid()}.done")
        folder.rename(done)  # atomically, so that no other training finds it half removed
        shutil.rmtree(done)
    finally:
        lock.close()


def _lock(folder: Path) -> TextIO:
    """Lock a folder. The kernel releases the lock when the process ends, in whatever way."""
    while True:
        _make(folder)
        try:
            lock = (folder / "lock").open("w")
        except FileNotFoundError:  # the training that held it is done and has just removed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"us3l: {folder} is in use by another process; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_file_at(lock, folder / "lock"):
            return lock
        lock.close()


def _make(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
    except OSError as error:
        where, why = error.filename, error.strerror
        raise UserError(f"{where}: no folder, and none can be made ({why}); give --runs one to write in") from None


def _is_file_at(file: TextIO, path: Path) -> bool:
    """Tell whether an opened file is still the one at `path`."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
