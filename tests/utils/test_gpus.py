"""Leases on made-up devices: a list of names is all they need."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, Project, params
from waiting import SECONDS, until

from us3l.utils.errors import UserError
from us3l.utils.gpus import lease, lock_folder, visible_gpus

POOL = [f"gpu{number}" for number in range(8)]

JOB = """
import os, signal, sys, time
from pathlib import Path
from us3l.utils.gpus import lease

folder, count, seconds, killed = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "killed"
log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND)
with lease(count, sys.argv[5].split(","), folder) as devices:
    os.write(log, f"+ {' '.join(devices)}\\n".encode())
    time.sleep(seconds)
    os.write(log, f"- {' '.join(devices)}\\n".encode())
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
"""

JOBS = """
import json, os, sys
import us3l.utils.gpus

job, waiting, running = compile(sys.argv[1], "job", "exec"), json.loads(sys.argv[2]), 0
while waiting or running:
    while waiting and running < 16:
        sys.argv[1:] = map(str, waiting.pop())
        running += 1
        if os.fork() == 0:
            exec(job)
            os._exit(0)
    os.wait()
    running -= 1
"""

PARENT = """
import subprocess, sys, time
from pathlib import Path
from us3l.utils.gpus import lease

child = '''
import sys, time
from pathlib import Path
from us3l.utils.gpus import lease
with lease(2, ["a", "b"], Path(sys.argv[1])):
    print("child holds", flush=True)
    time.sleep(60)
'''
with lease(2, ["a", "b", "c"], Path(sys.argv[1])):
    subprocess.run([sys.executable, "-c", child, sys.argv[1]])
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_hundred_jobs_never_share_a_device_and_leak_none(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    numbers = random.Random(0)
    waiting = [
        (numbers.choice([1, 2, 4]), numbers.uniform(0.01, 0.06), numbers.choice(["killed", "ends", "ends"]))
        for _ in range(200)
    ]
    assert python(JOBS, JOB, json.dumps([[tmp_path.as_posix(), *job, ",".join(POOL)] for job in waiting])).wait() == 0
    busy: set[str] = set()
    peak = jobs = 0
    for line in (tmp_path / "log").read_text().splitlines():
        sign, *devices = line.split()
        if sign == "+":
            assert not busy & set(devices), "two jobs hold the same device"
            busy |= set(devices)
            peak, jobs = max(peak, len(busy)), jobs + 1
        else:
            busy -= set(devices)
    assert jobs == 200
    assert peak == len(POOL)
    with lease(len(POOL), POOL, tmp_path) as everything:
        assert everything == POOL


def test_an_orphan_keeps_its_devices_until_it_dies(tmp_path: Path) -> None:
    parent = python(PARENT, tmp_path)
    assert parent.stdout.readline() == "child holds\n"
    child = int(subprocess.check_output(["pgrep", "-P", str(parent.pid)], text=True))
    parent.kill()
    parent.wait()
    (tmp_path / "log").touch()
    late = python(JOB, tmp_path, 3, 0, "ends", "a,b,c")
    wait_for_tries(tmp_path, late)
    os.kill(child, signal.SIGKILL)
    assert late.wait(SECONDS) == 0


def wait_for_tries(folder: Path, process: Any) -> None:
    """Wait until a process has looked in vain for free devices five times."""
    looking = folder / "looking"  # written at each try
    tries: set[int] = set()

    def has_tried() -> bool:
        assert process.poll() is None, "it took devices that another job holds"
        tries.add(looking.stat().st_mtime_ns if looking.exists() else 0)
        return len(tries) > 5

    until(has_tried, "five tries")


def test_a_child_whose_parents_devices_went_to_another_job_is_refused(tmp_path: Path) -> None:
    with lease(1, ["a"], tmp_path):
        os.environ["US3L_LEASE"] = "a parent that died"
        with pytest.raises(UserError, match="GPU a went to another job"), lease(1, ["a"], tmp_path):
            pass


def test_the_environment_names_the_devices_while_they_are_held(tmp_path: Path) -> None:
    before = dict(os.environ)
    with lease(2, ["3", "5", "7"], tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert dict(os.environ) == before


def test_more_devices_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 GPUs asked for and 2 there"), lease(3, ["0", "1"], tmp_path):
        pass


def test_a_command_waits_for_the_device_that_another_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    project = Project(tmp_path / "project", params(epochs=1))
    project.must("us3l", "prepare", "digits")
    with lease(1, ["0"], lock_folder()):
        del os.environ["US3L_LEASE"]  # until the lease puts back all that there was
        command = project.start("us3l", "pretrain", "tiny", "us3l", "0")
        wait_for_tries(lock_folder(), command)
    assert command.wait(SECONDS) == 0
    assert list(project.folder.glob("results/tiny/checkpoints/us3l/*.safetensors"))


@pytest.mark.parametrize(("chosen", "names"), [("", []), ("-1", []), ("2", ["2"]), ("0, GPU-ab", ["0", "GPU-ab"])])
def test_a_choice_made_outside_is_respected(monkeypatch: pytest.MonkeyPatch, chosen: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == names


def test_a_device_may_have_a_name_that_is_no_files_name_and_may_be_named_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mig = "MIG-GPU-5f1/1/0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{mig},../x,{mig}")
    devices = visible_gpus()
    assert devices == [mig, "../x"]
    with lease(2, devices, tmp_path / "locks") as taken:
        assert taken == devices
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


@pytest.mark.parametrize("kind", ["file", "dangling link", "not ours"])
def test_a_folder_of_locks_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "locks"
    match kind:
        case "file":
            folder.touch()
        case "dangling link":
            folder.symlink_to(tmp_path / "gone" / "there")
        case "not ours":
            monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=f"^{folder}: no folder that you may write locks on GPUs to"):
        lease(1, POOL, folder).__enter__()


def test_a_slurm_job_has_the_devices_that_slurm_names_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "glob", lambda *_: [Path("/dev/nvidia0")])
    assert visible_gpus() == []
    monkeypatch.delenv("SLURM_JOB_ID")
    assert visible_gpus() == ["0"]


def test_each_slurm_job_locks_its_own_devices_and_the_next_removes_the_locks_of_ended_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locks() -> set[str]:
        return {path.name for path in tmp_path.iterdir()} - {"looking"}

    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with lease(1, ["0"], tmp_path):
        del os.environ["US3L_LEASE"]  # until the lease puts back all that there was
        monkeypatch.setenv("SLURM_JOB_ID", "2")
        with lease(1, ["0"], tmp_path):
            assert locks() == {"slurm-1-0", "slurm-2-0"}
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    with lease(1, ["0"], tmp_path):
        assert locks() == {"slurm-3-0"}
