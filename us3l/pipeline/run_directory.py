"""The directory of an unfinished training's state: held by one training at a time, removed when it is done."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError

ABOUT = "run.json"  # in the directory: what it is of
REMEDY = "give --runs a folder to write in"
PAUSE = 1.0  # seconds between two calls while waiting


@contextmanager
def run_directory(
    folder: Path, about: dict[str, Any] | None = None, while_waiting: Callable[[], object] = lambda: None
) -> Iterator[Path]:
    """Hold `folder` alone, waiting while another process holds it; remove it when the block ends without an error.

    The folder that it lies in is made, too, but none above. A file in it says what it is about, if told.
    `while_waiting` is called again and again.
    Raises UserError where that fails.
    """
    _make(folder.parent)
    lock = lock_of(folder)
    with _acquire(lock, folder, while_waiting):
        _make(folder)
        if about:
            with atomic_write(folder / ABOUT) as temporary:
                temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        yield folder
        shutil.rmtree(folder)
        Path(lock.lock_file).unlink()


def lock_of(folder: Path) -> FileLock:
    """Return the lock on a run directory; the kernel frees it when its process dies, however it dies."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _acquire(lock: FileLock, folder: Path, while_waiting: Callable[[], object]) -> AbstractContextManager[object]:
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        print(f"us3l: {folder} is in use by another process; waiting for it", file=sys.stderr)
    except OSError as error:
        raise UserError(f"{lock.lock_file}: cannot be locked ({error}); move it away, or {REMEDY}") from None
    while True:
        while_waiting()
        with suppress(Timeout):
            return lock.acquire(timeout=PAUSE)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder, and none can be made ({error.strerror}); {REMEDY}") from None
