"""Trainings on several nodes, all of them this machine: what they compute, and what happens when one is lost."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fork_program import FORKED_RANKS
from forks import Process
from project import Project, params
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher import api
from waiting import until

from us3l.cli.plans import load_plan, stage_of
from us3l.pipeline import run_directory
from us3l.pipeline.stages import pretrain
from us3l.utils import launch
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
RECORD = Path("results/tiny/pretrain/us3l/seed0.json")
PRETRAIN = ("pretrain", "tiny", "us3l", "0", "--gpus", "0", "--save-every", "0")
NOTICED = 30  # seconds
SILENCE = 10  # seconds, instead of minutes

# us3l as a node runs it, with processes of the same kind.
IMPATIENT = f"""
from datetime import timedelta
from torch.distributed.launcher import api
from us3l.cli import main
from us3l.utils import distributed

distributed.SILENCE = timedelta(seconds={SILENCE})
launch = api.elastic_launch
api.elastic_launch = lambda config, python: lambda *command: launch(config, python)("-m", "impatient", *command[2:])
main()
"""

Start = Callable[[str], list[Process]]
Us3l = Callable[..., tuple[int, str, str]]


def child_failed(code: int) -> ChildFailedError:
    return ChildFailedError("us3l", {0: ProcessFailure(0, 1, code, "")})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A training in one process, with four shards."""
    made = Project(tmp_path_factory.mktemp("alone"), params(epochs=2, batch={"size": 32, "shards": 4}))
    made.must("us3l", "prepare", "digits")
    made.must("us3l", *PRETRAIN)
    return made


@pytest.fixture
def project(tmp_path: Path, alone: Project) -> Project:
    """The same, not trained."""
    shutil.copytree(alone.folder, tmp_path / "project", ignore=shutil.ignore_patterns("results", "logs", "runs"))
    made = Project(tmp_path / "project", params(epochs=2, batch={"size": 32, "shards": 4}))
    (made.folder / "impatient.py").write_text(IMPATIENT)
    return made


@pytest.fixture
def start(project: Project) -> Iterator[Start]:
    """Starts a module with a training on two nodes and waits for a state that it has saved; the agent of each node."""
    started: list[Process] = []

    def start(module: str) -> list[Process]:
        began = time.time()
        agents = on_two_nodes(project, module)
        started.extend(agents)
        until(lambda: is_saved(project, began) or any(agent.poll() is not None for agent in agents), "a saved state")
        return agents

    yield start
    for agent in started:
        send(agent, signal.SIGKILL)
        agent.wait()


def on_two_nodes(project: Project, module: str) -> list[Process]:
    """Start the training; the agent of rank 0 listens, and its process saves."""
    command = (module, *PRETRAIN, "--nodes", "2", "--rdzv-endpoint", f"127.0.0.1:{free_port()}")
    return [project.start(*command, "--node-rank", str(rank)) for rank in range(2)]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def is_saved(project: Project, since: float) -> bool:
    return any(path.stat().st_mtime > since for path in project.folder.glob("runs/*/state.safetensors"))


def send(agent: Process, number: signal.Signals) -> None:
    """Send a signal to an agent and its processes, if they are there."""
    with suppress(psutil.NoSuchProcess):
        for process in (*psutil.Process(agent.pid).children(), psutil.Process(agent.pid)):
            process.send_signal(number)


def end(agent: Process) -> str:
    """What an agent and its processes print until their end, which comes soon."""
    began = time.monotonic()
    agent.wait(NOTICED)
    print(f"noticed after {time.monotonic() - began:.1f} s")
    output, _ = agent.communicate()
    assert "Traceback" not in output
    return output


def go_on(project: Project) -> None:
    """Train to the end, in processes that start fast."""
    project.environment[FORKED_RANKS] = "1"
    agents = on_two_nodes(project, "us3l")
    outputs = [agent.communicate()[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert "goes on in epoch" in outputs[0] + outputs[1]


def is_bitwise_equal(project: Project, alone: Project) -> bool:
    assert read_record(project.folder / RECORD)["processes"] > 1
    return (project.folder / CHECKPOINT).read_bytes() == (alone.folder / CHECKPOINT).read_bytes()


def test_two_nodes_of_two_processes_give_the_bits_of_one_process(project: Project, alone: Project) -> None:
    project.environment[FORKED_RANKS] = "1"
    torchrun = ("--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d")
    endpoint = ("--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "test", "--max-restarts", "0")
    both = [project.start("torch.distributed.run", *torchrun, *endpoint, "-m", "us3l", *PRETRAIN) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert read_record(project.folder / RECORD)["processes"] == 4
    assert is_bitwise_equal(project, alone)


def test_a_lost_node_ends_the_other_with_a_sentence_and_the_same_commands_go_on(
    project: Project, alone: Project, start: Start
) -> None:
    project.environment[FORKED_RANKS] = "1"
    for lost in (1, 0):
        agents = start("us3l")
        send(agents[lost], signal.SIGKILL)
        output = end(agents[1 - lost])
        assert agents[1 - lost].returncode == 2
        assert "has ended or is out of reach" in output and "it goes on from the last saved step" in output
        assert not (project.folder / CHECKPOINT).exists()
    go_on(project)
    assert is_bitwise_equal(project, alone)


def test_a_lost_agent_ends_all_processes_which_save(project: Project, alone: Project, start: Start) -> None:
    agents = start("us3l")
    agents[0].kill()
    outputs = [end(agents[1]), end(agents[0])]
    assert agents[1].returncode == 128 + signal.SIGTERM
    assert all("stopped by SIGTERM; the same command continues from here" in output for output in outputs)
    go_on(project)
    assert is_bitwise_equal(project, alone)


def test_a_node_that_falls_silent_is_noticed(project: Project, alone: Project, start: Start) -> None:
    agents = start("impatient")
    send(agents[1], signal.SIGSTOP)
    assert "has ended or is out of reach" in end(agents[0])
    send(agents[1], signal.SIGKILL)
    go_on(project)
    assert is_bitwise_equal(project, alone)


@pytest.mark.parametrize(
    ("rank", "why"), [(0, "1/2 clients joined"), (1, "has timed out after 1000ms while trying to connect")]
)
def test_nodes_that_do_not_meet_end_with_a_sentence(monkeypatch: pytest.MonkeyPatch, rank: int, why: str) -> None:
    monkeypatch.setattr(launch, "JOIN", 1)
    endpoint = f"127.0.0.1:{free_port()}"
    said = f"{endpoint}: 2 nodes did not meet here within 1 seconds .*{why}.*; start the same command on each of them"
    with pytest.raises(UserError, match=said):
        launch.launch_node(1, "name", 2, rank, endpoint)


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (child_failed(2), 2, ""),
        (child_failed(-signal.SIGKILL), 2, "us3l: SIGKILL ended a process of this training, as where memory runs out"),
        (SignalException("", signal.SIGTERM), 128 + signal.SIGTERM, ""),
    ],
)
def test_the_end_of_a_process_or_of_its_agent_is_the_end_of_the_command(
    alone: Project, us3l: Us3l, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: int, said: str
) -> None:
    def fail(*command: str) -> None:
        raise failure

    monkeypatch.chdir(alone.folder)
    monkeypatch.setattr(launch, "process_count", lambda *_: 2)
    monkeypatch.setattr(api, "elastic_launch", lambda *_: fail)
    ended, _, errors = us3l(*PRETRAIN, "--force")
    assert ended == code and said in errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpus", "3", "--nodes", "2"), "--nodes 2: does not divide the GPUs; --gpus 3 are those of all nodes"),
        (
            ("--gpus", "4", "--nodes", "2"),
            "--nodes 2: this is no Slurm job; start the same command on each node by hand",
        ),
        (("--nodes", "3", "--rdzv-endpoint", "127.0.0.1:1"), "--nodes 3: does not divide the batch's shards, 4"),
        (("--nodes", "2", "--rdzv-endpoint", "there"), "--rdzv-endpoint there: must be HOST:PORT, a free port of the"),
        (("--nodes", "2", "--rdzv-endpoint", "a:1", "--node-rank", "2"), "--node-rank 2: must be below the 2 nodes"),
    ],
)
def test_nodes_that_cannot_be_had_are_refused(
    alone: Project, us3l: Us3l, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(alone.folder)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    code, _, errors = us3l(*PRETRAIN, "--force", *options)
    assert code == 2 and said in errors


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """A Slurm job of two nodes by its commands' answers; the command lines that take the place of this process."""
    for name, answer in {"squeue": "a[1-2]", "scontrol": "a1\na2"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "120042")
    monkeypatch.setattr(sys, "argv", ["us3l", "pretrain", "s", "r", "0"])
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, command: commands.append(command))
    yield commands


def test_in_a_slurm_job_srun_starts_the_same_command_on_each_node(slurm: list[list[str]]) -> None:
    launch.srun(2, 4, 3)
    [command] = slurm
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--cpus-per-gpu=3"} < {*command}
    assert command[-7:] == ["us3l", "pretrain", "s", "r", "0", "--rdzv-endpoint", "a1:20042"]


def test_a_slurm_job_of_other_nodes_or_without_its_commands_is_refused(
    slurm: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="--nodes 3: Slurm job 120042 has 2; submit it with --nodes=3"):
        launch.srun(3, 0, 1)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho nothing of that name >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"scontrol show hostnames a\[1-2\]: nothing of that name; mend this"):
        launch.srun(2, 0, 1)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="squeue: No such file or directory; load the module of Slurm in the job"):
        launch.srun(2, 0, 1)
    assert slurm == []


def test_while_the_first_process_waits_for_the_run_directory_all_vote_again_and_again(
    alone: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the loss of a node is noticed meanwhile."""
    monkeypatch.setattr(run_directory, "PAUSE", 0.01)
    job = stage_of(load_plan(alone.folder / "params.yaml"), "tiny", "us3l", 0, "pretrain")
    other = run_directory.lock_of(tmp_path / "folder").acquire()
    votes: list[bool] = []

    def vote(flag: bool) -> bool:
        votes.append(flag)
        if len(votes) == 3:
            other.lock.release()
        return flag

    first = SimpleNamespace(is_main=True, any=vote)
    with pretrain._held_folder(job, tmp_path / "folder", first) as folder:
        assert folder == tmp_path / "folder"
    assert votes == [True, True, True, False, False]
    heard = iter(votes)
    second = SimpleNamespace(is_main=False, any=lambda flag: next(heard))
    with pretrain._held_folder(job, tmp_path / "folder", second) as folder:
        assert folder == tmp_path / "folder" and list(heard) == []
