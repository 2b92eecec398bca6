"""What a process prints comes as soon as an interpreter's own streams would give it."""

import os

import pytest

from us3l.utils import process


@pytest.mark.parametrize(("unbuffered", "comes"), [("", b""), ("1", b"half a line")])
def test_an_unbuffered_process_prints_at_once(monkeypatch: pytest.MonkeyPatch, unbuffered: str, comes: bytes) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    read, write = os.pipe()
    stream = process._open(write, process.Output, None)
    stream.write("half a line")
    os.write(write, b".")
    assert os.read(read, 100) == comes + b"."
    stream.flush()
    for each in (read, write):
        os.close(each)


def test_errors_come_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    read, write = os.pipe()
    former = os.dup(2)
    try:
        os.dup2(write, 2)
        process._open(2, process.Messages, None).write("a line\n")
    finally:
        os.dup2(former, 2)
    assert os.read(read, 100) == b"a line\n"
    for each in (read, write, former):
        os.close(each)
