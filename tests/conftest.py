import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from us3l.cli import main
from us3l.utils.errors import ENDING
from us3l.utils.fork_server import ADDRESS
from us3l.utils.memory import keep_freed_memory

os.environ[ADDRESS] = ""  # tests fork from a server of their own
keep_freed_memory()
for number in ENDING:
    if signal.getsignal(number) is signal.SIG_IGN:  # as nohup has it, and a shell for its background jobs
        signal.signal(number, signal.SIG_DFL)
os.fsync = lambda file: None  # no test's machine loses its power
torch.set_num_threads(1)  # workers take all cores, and threads that wait for each other take longer than one alone


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Take one worker more than there are cores, since many tests wait for processes; four at most."""
    return min(4, 1 + (os.cpu_count() or 1))


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors are float64, so that two ways to the same number can be told from rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def us3l(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: a new one would import PyTorch each time."""
    return partial(_run, "us3l", main, monkeypatch, capsys)


@pytest.fixture
def benchmarks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `python -m benchmarks` in this process."""
    from benchmarks.__main__ import main

    return partial(_run, "benchmarks", main, monkeypatch, capsys)


def _run(
    name: str,
    main: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, *capsys.readouterr()


@pytest.fixture
def must_end() -> Iterator[None]:
    """End the process where a test hangs, as one whose input keeps a reader busy would."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
