"""The directory where an unfinished training keeps its state: held by one training at a time, gone once it is done."""

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
    """Hold `folder` alone, waiting while another process holds it; remove it when the block ends without an error.

    Raises UserError where it cannot be made.
    """
    lock = _lock(folder)
    try:
        yield folder
        done = folder.with_name(f".{folder.name}.{os.getpid()}.done")
        folder.rename(done)  # at once, so that no other training finds it half removed
        shutil.rmtree(done)
    finally:
        lock.close()


def _lock(folder: Path) -> TextIO:
    """The kernel frees the lock when its process dies, however it dies."""
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
        if _is_still(lock, folder / "lock"):
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


def _is_still(file: TextIO, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
