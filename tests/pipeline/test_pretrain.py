"""Pretraining as its user meets it: processes that are killed, resumed and multiplied."""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from fork_program import FORKED_RANKS
from project import Project, params
from safetensors.torch import load_file
from waiting import until

from us3l.training import trainer
from us3l.utils.records import read_record

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
RECORD = Path("results/tiny/pretrain/us3l/seed0.json")
PRETRAIN = ("us3l", "pretrain", "tiny", "us3l", "0")


def project(folder: Path, **run: Any) -> Project:
    made = Project(folder, params(**run))
    made.must("us3l", "prepare", "digits")
    return made


def weights(made: Project) -> bytes:
    return (made.folder / CHECKPOINT).read_bytes()


def history(made: Project) -> dict[str, Any]:
    return read_record(made.folder / RECORD)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project(tmp_path_factory.mktemp("uninterrupted"))
    made.must(*PRETRAIN)
    return made


def saved_states(made: Project) -> list[Path]:
    return list((made.folder / "runs").glob("*/state.safetensors"))


def wait_for_state(made: Project, process: Any) -> None:
    until(lambda: process.poll() is not None or bool(saved_states(made)), "a saved state")


def test_killed_ten_times_it_ends_bitwise_where_the_uninterrupted_training_ends(
    tmp_path: Path, uninterrupted: Project
) -> None:
    made = project(tmp_path)
    moments = random.Random(0)
    for _ in range(10):
        process = made.start(*PRETRAIN, "--save-every", "0")
        wait_for_state(made, process)
        time.sleep(moments.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    made.must(*PRETRAIN)
    assert weights(made) == weights(uninterrupted)
    assert [e["loss"] for e in history(made)["epochs"]] == [e["loss"] for e in history(uninterrupted)["epochs"]]
    assert history(made)["core_seconds"] > 0.5 * history(uninterrupted)["core_seconds"] > 0


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGHUP, 1)])
def test_a_signal_saves_and_exits_and_the_same_command_continues(
    tmp_path: Path, uninterrupted: Project, number: signal.Signals, times: int
) -> None:
    made = project(tmp_path)
    process = made.start(*PRETRAIN, "--save-every", "0")
    wait_for_state(made, process)
    for _ in range(times):
        process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 128 + number, output
    assert saved_states(made) and not (made.folder / CHECKPOINT).exists()
    made.must(*PRETRAIN)
    assert weights(made) == weights(uninterrupted)
    assert not list((made.folder / "runs").iterdir())


def test_sigterm_to_the_launcher_saves_on_all_ranks(tmp_path: Path) -> None:
    made = project(tmp_path)
    process = made.start(
        "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *PRETRAIN, "--save-every", "0"
    )
    wait_for_state(made, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert output.count("stopped by SIGTERM") == 2, output
    made.must(*PRETRAIN)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_two_and_four_processes_give_the_same_bits(tmp_path: Path, precision: str) -> None:
    """4 epochs of 2 steps: first the widest network alone, then three widths."""
    losses, bits = {}, {}
    for processes in (1, 2, 4):
        made = project(tmp_path / str(processes), batch={"size": 32, "shards": 4}, precision=precision)
        made.environment[FORKED_RANKS] = "1"
        made.must("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", *PRETRAIN)
        assert history(made)["processes"] == processes
        losses[processes] = [value for epoch in history(made)["epochs"] for value in epoch["loss"]]
        bits[processes] = weights(made)
    assert len(losses[1]) == 1 + 3 * 3
    assert losses[1] == losses[2] == losses[4]
    assert bits[1] == bits[2] == bits[4]


def test_a_training_that_waited_for_another_of_its_params_takes_what_that_has_made(tmp_path: Path) -> None:
    made = project(tmp_path)
    first = made.start(*PRETRAIN, "--save-every", "0")
    wait_for_state(made, first)
    code, output = made.run(*PRETRAIN)
    first.communicate()
    assert code == first.returncode == 0
    assert "waiting for it" in output and "epoch 1/" not in output
    assert weights(made)


def test_processes_that_start_together_find_together_that_nothing_is_to_be_done(
    tmp_path: Path, uninterrupted: Project
) -> None:
    shutil.copytree(uninterrupted.folder, tmp_path / "copy")
    made, before = Project(tmp_path / "copy", params()), history(uninterrupted)
    two = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *PRETRAIN)
    assert made.must(*two).count("up to date") == 1
    assert history(made) == before
    assert "up to date" not in made.must(*two, "--force")
    assert history(made)["processes"] == 2 and weights(made) == weights(uninterrupted)


def test_processes_that_do_not_divide_the_shards_are_refused(tmp_path: Path) -> None:
    made = project(tmp_path, batch={"size": 32, "shards": 1})
    made.environment[FORKED_RANKS] = "1"
    code, output = made.run("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *PRETRAIN)
    assert code != 0
    assert "2 processes cannot share 1 shards equally" in output


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    made = project(tmp_path, optimizer={"lr": 1e38})
    code, output = made.run(*PRETRAIN, "--save-every", "0")
    assert code == 2
    assert "no longer finite" in output and "Traceback" not in output
    assert not (made.folder / CHECKPOINT).exists()


def test_the_state_from_before_a_loss_that_is_not_finite_stays(tmp_path: Path) -> None:
    """The first epoch warms up from a rate of 0; the second one bursts."""
    made = project(tmp_path, optimizer={"lr": 1e38, "warmup_epochs": 1})
    code, output = made.run(*PRETRAIN, "--save-every", "0")
    assert code == 2
    [state] = saved_states(made)
    assert f"the last good state is kept in {state.relative_to(made.folder)}" in output
    assert all(tensor.isfinite().all() for tensor in load_file(state).values())


def test_other_params_never_continues_from_this_ones_state(tmp_path: Path) -> None:
    made = project(tmp_path)
    process = made.start(*PRETRAIN, "--save-every", "0")
    wait_for_state(made, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made.write(params(optimizer={"lr": 0.04}))
    made.must(*PRETRAIN)
    assert history(made)["epochs"][0]["lr"] == 0.04
    assert len(saved_states(made)) == 1, "the first params' state stays for the first params"


def test_a_collapse_is_logged(tmp_path: Path) -> None:
    """Without a momentum encoder, with a huge weight decay, every image gets the same embedding."""
    simsiam = {"name": "simsiam", "base_loss": "cosine", "momentum": None, "projector": {"hidden": 16, "output": 8}}
    made = project(tmp_path, method=simsiam, regularizer=None, optimizer={"lr": 0.5, "weight_decay": 0.5}, epochs=16)
    output = made.must(*PRETRAIN)
    assert "the embeddings have collapsed" in output


def test_a_gpu_asked_for_where_there_is_none_is_refused(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    made = project(tmp_path)
    code, output = made.run(*PRETRAIN, "--device", "cuda")
    assert code == 2
    assert "sees no GPU" in output and "Traceback" not in output


def test_a_training_below_nohup_goes_on_when_the_terminal_closes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with trainer._signals() as caught:
            for number in (signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), number)
        assert caught == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGHUP, before)
