"""The directory of an unfinished training's state: held by one training at a time, removed when it is done."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from us3l.utils.errors import UserError


@contextmanager
def run_directory(folder: Path) -> Iterator[Path]:
    """Hold `folder` alone, waiting while another process holds it; remove it when the block ends without an error.

    Raises UserError where it cannot be made.
    """
    _make(folder.parent)
    lock = folder.with_name(f"{folder.name}.lock")  # the kernel frees it when its process dies, however it dies
    with _acquire(FileLock(lock), folder):
        _make(folder)
        yield folder
        shutil.rmtree(folder)
        lock.unlink()


def _acquire(lock: FileLock, folder: Path) -> AbstractContextManager[object]:
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        print(f"us3l: {folder} is in use by another process; waiting for it", file=sys.stderr)
        return lock.acquire()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where, why = error.filename, error.strerror
        raise UserError(f"{where}: no folder, and none can be made ({why}); give --runs one to write in") from None
