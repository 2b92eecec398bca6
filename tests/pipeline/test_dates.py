"""The file that makes Snakemake make what is out of date again, and nothing else."""

import os
import time
from pathlib import Path

import pytest

from us3l.pipeline.dates import OUTDATED, write_outdated


def test_what_is_out_of_date_is_older_and_what_was_made_since_is_newer_whoever_looks_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old, made, missing = Path("old"), Path("made"), Path("missing")
    old.touch()
    os.utime(old, (time.time() - 60,) * 2)
    write_outdated([old, missing])
    made.touch()
    for _ in range(2):
        before = OUTDATED.read_text()
        write_outdated([old, missing])
        assert old.stat().st_mtime < OUTDATED.stat().st_mtime < made.stat().st_mtime
        assert OUTDATED.read_text() != before
    assert [*OUTDATED.parent.iterdir()] == [OUTDATED]


def test_results_of_the_future_get_the_present_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = Path("result")
    result.touch()
    os.utime(result, (time.time() + 3600,) * 2)
    write_outdated([result])
    assert result.stat().st_mtime < OUTDATED.stat().st_mtime < time.time() + 1
