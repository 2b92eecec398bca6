"""A training on two nodes of a real Slurm."""

import shutil
import sys
from pathlib import Path

import pytest
from project import ROOT, Project, params
from slurm import running_slurm

from us3l.utils.records import read_record

PRETRAIN = ("pretrain", "tiny", "us3l", "0", "--gpus", "0")
CHECKPOINT, RECORD = "results/tiny/checkpoints/us3l/seed0.safetensors", "results/tiny/pretrain/us3l/seed0.json"


def test_a_training_on_two_nodes_gives_the_bits_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes are called like the addresses where they listen, so each finds the other."""
    alone = Project(tmp_path / "alone", params(epochs=1))
    alone.must("us3l", "prepare", "digits")
    shutil.copytree(alone.folder, tmp_path / "nodes")
    alone.must("us3l", *PRETRAIN)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = (sys.executable, "-m", "us3l", *PRETRAIN, "--nodes", "2")
    with running_slurm({"127.0.0.1": 1, "127.0.0.2": 1}) as slurm:
        job = ("--nodes=2", "--ntasks=2", "--mem=1000", f"--chdir={tmp_path / 'nodes'}")
        slurm.call("salloc", *job, *command)
        with pytest.raises(AssertionError, match=r"us3l: --nodes 2: Slurm job \d+ has 1; submit it with --nodes=2"):
            slurm.call("salloc", "--nodes=1", *job[2:], *command, "--force")
    assert read_record(tmp_path / "nodes" / RECORD)["processes"] == 2
    assert (tmp_path / "nodes" / CHECKPOINT).read_bytes() == (alone.folder / CHECKPOINT).read_bytes()
