"""A run directory and the processes that want it."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from project import params
from waiting import SECONDS

import us3l
from us3l.params.params import Params
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.run_directory import run_directory
from us3l.pipeline.unfinished import PROBE, RUNS, unfinished_training
from us3l.utils.errors import UserError
from us3l.utils.records import write_record

HOLDER = """
import sys
from pathlib import Path
from us3l.pipeline.run_directory import run_directory

def note(what):
    with open(f"{sys.argv[1]}.log", "a") as log:
        log.write(what + "\\n")

with run_directory(Path(sys.argv[1])) as folder:
    (folder / "state").touch()
    note("in")
    print("in", flush=True)
    sys.stdin.readline()
    note("out")
print("out", flush=True)
"""

Holder = subprocess.Popen[str]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[], Holder]]:
    """Starts a process that takes the directory `run`, says so, and keeps it until it is sent a line."""
    started: list[Holder] = []

    def start() -> Holder:
        environment = os.environ | {"PYTHONPATH": str(Path(us3l.__file__).parent.parent)}
        command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(stream: IO[str]) -> str:
    """The next line; nothing where none comes."""
    return stream.readline() if select.select([stream], [], [], SECONDS)[0] else ""


def finish(process: Holder) -> tuple[str, str]:
    """Send it its line; the rest of what it printed, and its errors."""
    return process.communicate("\n", timeout=SECONDS)


def waits(process: Holder) -> bool:
    """Whether it says that it waits; that it does so is seen by `turns`."""
    return "is in use by another process; waiting for it" in line(process.stderr)


def turns(folder: Path) -> int:
    """How many processes have held the directory, one after the other."""
    noted = (folder / "run.log").read_text().split()
    assert noted == ["in", "out"] * (len(noted) // 2), "two held it at once"
    return len(noted) // 2


def test_the_second_process_says_that_it_waits_and_goes_on_when_the_first_is_done(
    tmp_path: Path, hold: Callable[[], Holder]
) -> None:
    first = hold()
    assert line(first.stdout) == "in\n"
    second = hold()
    assert waits(second)
    assert finish(first) == ("out\n", "")
    assert line(second.stdout) == "in\n"
    assert (tmp_path / "run" / "state").exists(), "it holds a directory of its own, not the removed one"
    third = hold()
    assert waits(third)
    assert finish(second) == ("out\n", "")
    assert finish(third) == ("in\nout\n", "")
    assert turns(tmp_path) == 3
    assert not (tmp_path / "run").exists()


def test_the_second_process_goes_on_from_the_state_of_a_first_that_is_killed(
    tmp_path: Path, hold: Callable[[], Holder]
) -> None:
    first = hold()
    assert line(first.stdout) == "in\n"
    (tmp_path / "run" / "progress").write_text("half")
    second = hold()
    assert waits(second)
    first.send_signal(signal.SIGKILL)
    assert line(second.stdout) == "in\n"
    assert (tmp_path / "run" / "progress").read_text() == "half"
    assert finish(second) == ("out\n", "")
    assert not (tmp_path / "run").exists()


def test_of_many_processes_each_gets_its_turn(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    processes = [hold() for _ in range(6)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=SECONDS)[0] for process in processes] == ["in\nout\n"] * 6
    assert turns(tmp_path) == 6
    assert not (tmp_path / "run").exists()


def test_the_directory_is_removed_with_all_that_is_in_it_once_the_block_is_done(tmp_path: Path) -> None:
    with run_directory(tmp_path / "runs" / "0f") as folder:
        (folder / "state").write_text("half")
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_directory_is_kept_after_an_error_and_free_for_the_next(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_directory(tmp_path / "run") as folder:
        (folder / "state").write_text("half")
        raise KeyboardInterrupt
    with run_directory(tmp_path / "run") as folder:
        assert (folder / "state").read_text() == "half"


@pytest.mark.parametrize("kind", ["dangling link", "file", "read-only"])
def test_where_no_directory_can_be_made_is_said(tmp_path: Path, kind: str) -> None:
    runs = Path("/proc/nowhere") if kind == "read-only" else tmp_path / "runs"
    if kind == "dangling link":
        runs.symlink_to(tmp_path / "gone")
    if kind == "file":
        runs.touch()
    with pytest.raises(UserError, match=f"^{runs}.*: no folder, and none can be made"), run_directory(runs / "0f"):
        pass


def test_other_directories_are_free(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    assert line(hold().stdout) == "in\n"
    with run_directory(tmp_path / "other"):
        assert (tmp_path / "run").exists()


def test_one_process_can_hold_it_again_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        with run_directory(tmp_path / "run"):
            pass


def test_a_folder_in_the_place_of_the_lock_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(UserError, match=r"/run\.lock: cannot be locked \(.*\); move it away, or give --runs"):
        run_directory(tmp_path / "run").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_a_pipe_in_the_place_of_the_lock_is_a_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.lock")
    with run_directory(tmp_path / "run") as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_made_above_the_one_of_runs(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"/scratch/runs: no folder, and none can be made \(No such file or directory\)"
    ):
        run_directory(tmp_path / "scratch" / "runs" / "0f").__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStage:
    monkeypatch.chdir(tmp_path)
    return RunStage(Plan(Params.model_validate(params())).run("tiny", "us3l"), "pretrain", 0)


def leave_unfinished(training: RunStage, **changes: object) -> str:
    """Write what a training leaves when it starts; the name of its directory."""
    [identity] = training.identities(CurrentSeals()).values()
    write_record(RUNS / fingerprint(identity | changes) / PROBE, identity | changes)
    return fingerprint(identity | changes)


def test_an_unfinished_training_is_found_whatever_else_lies_beside_it(training: RunStage) -> None:
    former = leave_unfinished(training, code={"us3l": "0123"})
    for kind in ("file", "folder", "pipe", "link", "bytes"):
        (RUNS / kind).mkdir()
    (RUNS / "folder" / PROBE).mkdir()
    os.mkfifo(RUNS / "pipe" / PROBE)
    (RUNS / "link" / PROBE).symlink_to("gone")
    (RUNS / "bytes" / PROBE).write_bytes(bytes(range(256)))
    found = unfinished_training(training)
    assert found and found.folder == RUNS / former


def test_a_training_that_todays_code_began_is_left_to_it(training: RunStage) -> None:
    leave_unfinished(training, code={"us3l": "0123"})
    leave_unfinished(training)
    assert unfinished_training(training) is None
