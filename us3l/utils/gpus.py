"""The GPUs of this machine, found without PyTorch, and leases on them: no two jobs compute on the same one.

Snakemake counts GPUs but assigns none. A lease is a kernel lock on one file per device, held by the process that takes
it and by each child that joins it: a device is free again once the last of them has died, in whatever way.
"""

import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import quote

from us3l.utils.errors import UserError

PAUSE = 0.05  # seconds between two tries


def visible_gpus() -> list[str]:
    """Return the devices in CUDA_VISIBLE_DEVICES, where a scheduler or the user set it, else all of the driver.

    A Slurm job has no others than Slurm names there.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "" if slurm_job() else None)
    if chosen is not None:
        return list(dict.fromkeys(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")))
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def slurm_job() -> str | None:
    """Return the number of the Slurm job that this process belongs to."""
    return os.environ.get("SLURM_JOB_ID")


def lock_folder() -> Path:
    """Return the folder of a user's locks."""
    return Path(tempfile.gettempdir(), f"us3l-gpus-{os.getuid()}")


@contextmanager
def lease(count: int, devices: list[str], folder: Path) -> Iterator[list[str]]:
    """Wait until `count` of the devices are free, and hold them: all or none, so that no two jobs wait for each other.

    Environment variables pass them to CUDA and to children, which join the lease instead of taking another.
    Raises UserError where there are too few devices, where a child's parent died and another job has its devices, and
    where the folder cannot be used.
    """
    if count == 0:
        yield []
        return
    if count > len(devices):
        raise UserError(f"{count} GPUs asked for and {len(devices)} there: ask for at most {len(devices)}")
    _make(folder)
    before = dict(os.environ)
    with ExitStack() as locks:
        if holder := os.environ.get("US3L_LEASE"):
            _join(locks, devices, folder, holder)
            yield devices
            return
        holder, taken = uuid.uuid4().hex, None
        while taken is None:
            taken = _take(locks, count, devices, folder, holder)
        os.environ.update(US3L_LEASE=holder, CUDA_VISIBLE_DEVICES=",".join(taken))
        try:
            yield taken
        finally:
            os.environ.clear()
            os.environ.update(before)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_ours = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        is_ours = False
    if not is_ours:
        raise UserError(f"{folder}: no folder that you may write locks on GPUs to; delete it, or set TMPDIR")


def _lock_file(folder: Path, device: str) -> Path:
    """Return the path of a device's lock; a Slurm job has its own, since it counts its own devices from 0."""
    owner = f"slurm-{slurm_job()}-" if slurm_job() else ""
    return folder / (owner + quote(device, safe=""))  # a MIG device may be called MIG-GPU-.../1/0


def _remove_locks_of_ended_jobs(folder: Path) -> None:
    for path in folder.glob("slurm-*"):
        with path.open("a", encoding="utf-8") as file:
            if _try_lock(file, fcntl.LOCK_EX):
                file.truncate(0)  # a child that has opened it finds no holder there
                path.unlink()


def _take(locks: ExitStack, count: int, devices: list[str], folder: Path, holder: str) -> list[str] | None:
    """Lock `count` free devices, one process at a time; where there are fewer, pause and return None."""
    with (folder / "looking").open("wb") as looking, ExitStack() as found:
        fcntl.flock(looking, fcntl.LOCK_EX)
        _remove_locks_of_ended_jobs(folder)
        free: dict[str, TextIOWrapper] = {}
        for device in devices:
            file = found.enter_context(_lock_file(folder, device).open("a+", encoding="utf-8"))
            if len(free) < count and _try_lock(file, fcntl.LOCK_EX):
                free[device] = file
        if len(free) == count:
            for file in free.values():
                file.truncate(0)
                file.write(holder)
                file.flush()
                fcntl.flock(file, fcntl.LOCK_SH)  # children can join it, and no other job can take it
            locks.push(found.pop_all())
            return list(free)
    time.sleep(PAUSE)
    return None


def _join(locks: ExitStack, devices: list[str], folder: Path, holder: str) -> None:
    for device in devices:
        file = locks.enter_context(_lock_file(folder, device).open("a+", encoding="utf-8"))
        file.seek(0)
        if not _try_lock(file, fcntl.LOCK_SH) or file.read() != holder:
            raise UserError(
                f"GPU {device} went to another job when the process that started this one died: start it again"
            )


def _try_lock(file: TextIOWrapper, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
