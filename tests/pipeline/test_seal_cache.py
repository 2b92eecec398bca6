"""Files are checked again after a change, and only then."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from us3l.pipeline import seal_cache
from us3l.utils.errors import UserError

Check = Callable[[Path], str]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks a file, in a project of its own, by reading it; how often is in `check.reads`."""
    monkeypatch.setattr(seal_cache, "CACHE", tmp_path / ".us3l" / "seals.sqlite")
    monkeypatch.setattr(seal_cache, "SETTLED", 0.0)

    def check(path: Path) -> str:
        def read() -> str:
            check.reads += 1
            if path.read_text() == "bad":
                raise UserError("damaged")
            return path.read_text()

        return seal_cache.checked([path], read)

    check.reads = 0
    return check


def test_a_file_is_read_once_until_it_changes_whatever_its_date(tmp_path: Path, check: Check) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    assert [check(path), check(path)] == ["one", "one"]
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [check(path), check(path)] == ["two", "two"]
    assert check.reads == 2


def test_damage_is_remembered_too(tmp_path: Path, check: Check) -> None:
    path = tmp_path / "file"
    path.write_text("bad")
    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            check(path)
    assert check.reads == 1


def test_a_file_that_has_just_changed_is_read_again(
    tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_cache, "SETTLED", 60.0)
    path = tmp_path / "file"
    path.write_text("one")
    assert [check(path), check(path)] == ["one", "one"]
    assert check.reads == 2


def test_a_project_that_cannot_be_written_to_is_checked_all_the_same(
    tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_cache, "CACHE", Path("/proc/nowhere/seals.sqlite"))
    path = tmp_path / "file"
    path.write_text("one")
    assert check(path) == "one"


@pytest.mark.parametrize("kind", ["text", "folder", "of other columns", "read-only", "empty"])
def test_a_memory_that_cannot_be_used_is_done_without(tmp_path: Path, check: Check, kind: str) -> None:
    memory, path = tmp_path / ".us3l" / "seals.sqlite", tmp_path / "file"
    path.write_text("one")
    memory.parent.mkdir()
    match kind:
        case "text":
            memory.write_text("no database\n" * 1000)
        case "folder":
            memory.mkdir()
        case "of other columns":
            with closing(sqlite3.connect(memory)) as database:
                database.execute("CREATE TABLE checks (name)")
        case "read-only":
            seal_cache._connect(str(memory)).close()
            memory.chmod(0o444)
        case "empty":
            memory.touch()
    assert [check(path), check(path)] == ["one", "one"]


def test_a_memory_that_is_damaged_meanwhile_is_done_without(tmp_path: Path, check: Check) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    assert check(path) == "one"
    (tmp_path / ".us3l" / "seals.sqlite").write_bytes(b"damage" * 10_000)
    path.write_text("two")
    assert check(path) == "two"


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_file_that_changes_after_the_clock_was_set_is_read_again(
    tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Its time of change differs; that it is later is nowhere asked."""
    path, now = tmp_path / "file", time.time
    path.write_text("one")
    assert check(path) == "one"
    monkeypatch.setattr(seal_cache.time, "time", lambda: now() + 3600 * hours)
    path.write_text("two")
    assert [check(path), check(path)] == ["two", "two"]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM checks; DROP TABLE checks; CREATE TABLE checks (other)",
        "UPDATE checks SET outcome = '['",
        "UPDATE checks SET outcome = '3'",
        "UPDATE checks SET outcome = '[1, 2]'",
        "UPDATE checks SET outcome = x'ff00'",
    ],
)
def test_a_damaged_memory_is_not_believed_and_the_file_is_read(tmp_path: Path, check: Check, damage: str) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    assert check(path) == "one"
    with sqlite3.connect(seal_cache.CACHE) as memory:
        memory.executescript(damage)
    assert check(path) == "one" and check.reads == 2
