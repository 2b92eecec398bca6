"""The fork server of workflows: what it forks is what a process of its own would be."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import ROOT, Project, params
from waiting import until

from us3l.utils.fork_server import ADDRESS

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
TRAIN = ("pretrain", "tiny", "us3l", "0")
BUILDER = """
from pathlib import Path
import torch

Path("seen").write_text(Path("/proc/self/cmdline").read_text())


class Builder(torch.nn.Module):
    def __init__(self, width, in_channels=1):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(in_channels)

    def forward(self, x):
        return self.norm(x).flatten(1)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server."""
    command = [sys.executable, "-P", "-m", "us3l.utils.fork_server"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as running:
        assert running.stdin and running.stdout
        address = running.stdout.readline().strip()
        assert Path(address).is_socket()
        yield address
        running.stdin.close()
        assert running.wait() == 0
        assert not Path(address).parent.exists()


def start(project: Project, address: str, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {ADDRESS: address, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "us3l", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=project.folder, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def run(project: Project, address: str, *arguments: str) -> tuple[int, str]:
    process = start(project, address, *arguments)
    output, _ = process.communicate()
    return process.returncode, output


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", params(epochs=1))


def test_a_forked_training_is_bitwise_one_in_a_process_of_its_own(project: Project, server: str) -> None:
    assert run(project, server, "prepare", "digits")[0] == 0
    code, output = run(project, server, *TRAIN)
    assert code == 0 and "epoch 1/1" in output
    forked = (project.folder / CHECKPOINT).read_bytes()
    project.must("us3l", *TRAIN, "--force")
    assert (project.folder / CHECKPOINT).read_bytes() == forked


@pytest.mark.parametrize("arguments", [["prepare", "digit"], ["plan", "--show", "x"], ["plan", "--none"], ["--help"]])
def test_exit_code_and_output_are_those_of_a_process_of_its_own(
    project: Project, server: str, arguments: list[str]
) -> None:
    assert run(project, server, *arguments) == run(project, "", *arguments)


def test_an_error_of_the_program_has_its_traceback(project: Project, server: str) -> None:
    (project.folder / "params.yaml").unlink()
    (project.folder / "params.yaml").mkdir()
    assert run(project, server, "plan")[0] == run(project, "", "plan")[0] != 0


def wait_for_steps(project: Project, process: subprocess.Popen[str]) -> None:
    states = project.folder / "runs"
    until(lambda: process.poll() is not None or any(states.glob("*/state.safetensors")), "a saved state")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_fork_which_saves_its_state(project: Project, server: str, number: signal.Signals) -> None:
    project.write(params(epochs=500))
    run(project, server, "prepare", "digits")
    process = start(project, server, *TRAIN, "--save-every", "0")
    wait_for_steps(project, process)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 128 + number, output
    assert "the same command continues from here" in output


def test_a_fork_ends_with_the_process_that_asked_for_it(project: Project, server: str) -> None:
    project.write(params(epochs=500))
    run(project, server, "prepare", "digits")
    process = start(project, server, *TRAIN, "--save-every", "0")
    wait_for_steps(project, process)
    process.kill()
    process.communicate()  # to the end of the output, which the fork holds open
    code, output = run(project, server, *TRAIN, "--help")
    assert code == 0, output


def test_a_fork_that_is_killed_fails(project: Project, server: str) -> None:
    project.write(params(epochs=500))
    run(project, server, "prepare", "digits")
    process = start(project, server, *TRAIN, "--save-every", "0")
    wait_for_steps(project, process)
    [fork] = [int(each.name) for each in Path("/proc").glob("[0-9]*") if is_training(each, project)]
    os.kill(fork, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert output.endswith("us3l: the process was killed; the machine may lack memory\n")


def is_training(process: Path, project: Project) -> bool:
    """Tell whether a process is a fork that works in the project."""
    try:
        is_there = (process / "cwd").resolve() == project.folder
        return is_there and b"us3l.utils.fork_server" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_request_that_breaks_off_leaves_the_server_as_it_is(project: Project, server: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert run(project, server, "prepare", "digits")[0] == 0
    assert Path(server).is_socket()


@pytest.mark.parametrize("address", ["/nowhere/socket", ""])
def test_without_a_server_the_command_runs_by_itself(project: Project, address: str) -> None:
    assert run(project, address, "prepare", "digits")[0] == 0


def test_jobs_of_snakemake_are_forks_of_a_server_that_ends_with_it(project: Project) -> None:
    project.with_workflow()
    (project.folder / "mine.py").write_text(BUILDER)
    content = params()
    content["studies"]["tiny"]["runs"] = {
        "us3l": {"kind": "untrained", "dataset": "digits", "backbone": "mine:Builder", "resources": {"gpus": 0}}
    }
    project.write(content)
    environment = {name: value for name, value in os.environ.items() if name != ADDRESS}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--", "results/tiny/pretrain/us3l/seed0.json"]
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "us3l.utils.fork_server" in (project.folder / "seen").read_text()
