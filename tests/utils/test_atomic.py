"""A file that is written is whole or absent, whatever stands in its place, and nothing stays beside it."""

import os
import signal
import stat
from pathlib import Path

import pytest

from us3l.utils import atomic
from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def leave_behind(path: Path) -> None:
    """What a process leaves that is killed while it writes."""
    if (pid := os.fork()) == 0:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_what_killed_processes_left_is_removed_by_the_next_that_writes_into_the_folder(tmp_path: Path) -> None:
    leave_behind(tmp_path / "other")
    assert len(list(tmp_path.iterdir())) == 1
    write(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_living_processes_write_is_left_alone(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "slow") as mine:
        mine.write_text("slow")
        if (pid := os.fork()) == 0:
            write(tmp_path / "quick")
            os._exit(0)
        os.waitpid(pid, 0)
        write(tmp_path / "third")
        assert mine.read_text() == "slow"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "slow": "slow",
        "quick": "new",
        "third": "new",
    }


def test_what_another_machine_writes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks may not be seen here."""
    with monkeypatch.context() as there:
        there.setattr(atomic, "PREFIX", ".us3l-elsewhere-")
        leave_behind(tmp_path / "file")
    write(tmp_path / "file")
    assert len(list(tmp_path.glob(".us3l-elsewhere-*.tmp"))) == 1


def test_a_temporary_file_that_is_taken_for_a_leftover_before_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = atomic.fcntl.flock, []

    def late(file: int, kind: int) -> None:
        if not taken:
            taken.extend(tmp_path.glob(".us3l-*.tmp"))
            taken[0].unlink()
        lock(file, kind)

    monkeypatch.setattr(atomic.fcntl, "flock", late)
    with atomic_write(tmp_path / "file") as temporary:
        assert temporary.exists() and taken != [temporary]
        temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    leave_behind(tmp_path / "file")
    monkeypatch.setattr(atomic.fcntl, "flock", no_locks)
    write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new" and len(list(tmp_path.iterdir())) == 2


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * 255)
    write(longest)
    assert longest.read_text() == "new"
    with pytest.raises(UserError, match="not writable: File name too long"):
        write(tmp_path / ("x" * 256))
    assert list(tmp_path.iterdir()) == [longest]


@pytest.mark.parametrize("kind", ["dangling link", "link", "pipe"])
def test_what_stands_in_a_files_place_is_replaced_and_not_written_to(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    if kind == "link":
        other.write_text("old")
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(other)
    write(path)
    assert stat.S_ISREG(path.lstat().st_mode) and path.read_text() == "new"
    assert not other.exists() or other.read_text() == "old"


def test_a_folder_in_a_files_place_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(UserError, match=r"/file: not writable: it is a folder; move it away$"):
        write(tmp_path / "file")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]
