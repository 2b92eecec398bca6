"""What is done first: a file is whole before it takes the place of another, and what a training goes on from goes last.

And what is done one at a time: the look for free devices.
"""

import fcntl
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from project import params
from short_probes import shorten_probes
from stages import prepared

from us3l.data.store import FILES, DatasetSource, SplitSource, write_store
from us3l.params.params import Params
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.stages import pretrain
from us3l.training.trainer import Trainer
from us3l.utils import gpus
from us3l.utils.atomic import atomic_write
from us3l.utils.distributed import World
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

CPU = torch.device("cpu")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced to disk, renamed and deleted, in order, by the names of the files."""
    noted: list[str] = []

    def note(owner: Any, name: str, what: str, path: Any) -> None:
        function = getattr(owner, name)

        def noting(*arguments: Any, **more: Any) -> Any:
            noted.append(f"{what} {path(*arguments)}")
            return function(*arguments, **more)

        monkeypatch.setattr(owner, name, noting)

    note(os, "fsync", "sync", lambda file: Path(os.readlink(f"/proc/self/fd/{file}")).name)
    note(Path, "replace", "rename to", lambda path, target: target.name)
    note(Path, "unlink", "delete", lambda path: path.name)
    note(shutil, "rmtree", "delete all of", lambda path: Path(path).name)
    return noted


def test_a_file_is_synced_then_renamed_then_its_folder_is_synced(tmp_path: Path, done: list[str]) -> None:
    (tmp_path / "results").mkdir()
    with atomic_write(tmp_path / "results" / "file") as temporary:
        temporary.write_text("new")
    name = temporary.name
    assert done == [f"sync {name}", "rename to file", "sync results", f"delete {name}"]


def test_a_file_that_could_not_be_written_is_deleted_and_never_renamed(tmp_path: Path, done: list[str]) -> None:
    with pytest.raises(KeyError), atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert done == [f"delete {temporary.name}"]
    assert list(tmp_path.iterdir()) == []


def test_the_parts_of_a_data_set_are_on_disk_before_the_old_one_is_none_and_its_description_comes_last(
    tmp_path: Path, done: list[str]
) -> None:
    split = SplitSource(torch.zeros(2, dtype=torch.long).numpy(), torch.zeros(2, 4, 4, 1, dtype=torch.uint8).numpy())
    write_store(tmp_path, DatasetSource(("a",), (4, 4, 1), split, split))
    renamed = [each.removeprefix("rename to ") for each in done if each.startswith("rename")]
    assert renamed == list(FILES)
    first = next(index for index, each in enumerate(done) if each.startswith("rename"))
    deleted = done.index("delete meta.json")
    synced = [each for each in done[:deleted] if each.startswith("sync")]
    assert deleted < first and len(synced) == 4, "all arrays are on disk before anything old is touched"


# --- a training -----------------------------------------------------------------------------------------------------


class Trained(Trainer):
    """A training that is done."""

    def run_to_the_end(self) -> None:
        self.save()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPlan:
    monkeypatch.chdir(tmp_path)
    shorten_probes(monkeypatch)
    monkeypatch.setattr(pretrain, "Trainer", Trained)
    planned = Plan(Params.model_validate(params(batch={"size": 8}))).run("tiny", "us3l")
    prepared(planned.data)
    return planned


def train(run: RunPlan) -> None:
    pretrain.pretrain(RunStage(run, "pretrain", 0), World(0, 1, CPU), Path("runs"), math.inf)


def test_the_state_is_removed_once_checkpoint_and_record_are_there_in_this_order(run: RunPlan, done: list[str]) -> None:
    train(run)
    made = read_record(run.training_record(0))
    renamed = [each for each in done if not each.startswith(("sync", "delete ."))]
    folder = made["fingerprint"]
    assert renamed[-4:] == [
        "rename to seed0.safetensors",
        "rename to seed0.json",
        f"delete all of {folder}",
        f"delete {folder}.lock",
    ]


@pytest.mark.parametrize("name", ["seed0.safetensors", "seed0.json"])
def test_the_state_stays_where_the_results_cannot_be_written(
    run: RunPlan, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == name:
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=f"{name}: the disk is full"):
        train(run)
    assert len(list(Path("runs").glob("*/state.safetensors"))) == 1


@pytest.mark.parametrize(("of_another", "trains"), [("fingerprint", True), ("nothing", False), ("date", True)])
def test_results_that_another_training_wrote_meanwhile_are_taken_only_if_they_are_of_the_same_training(
    run: RunPlan, monkeypatch: pytest.MonkeyPatch, of_another: str, trains: bool
) -> None:
    """The other one writes while this one waits for the folder; a record of old is no reason to skip a training."""
    train(run)
    record = run.training_record(0)
    made = {key: value for key, value in read_record(record).items() if key != "seal"}
    began: list[Trainer] = []
    monkeypatch.setattr(Trained, "run_to_the_end", lambda self: began.append(self))

    def waiting(*arguments: Any) -> Any:
        if of_another != "date":
            write_record(record, made | ({"fingerprint": "0" * 16} if of_another == "fingerprint" else {}))
        return hold(*arguments)

    hold = pretrain.run_directory
    monkeypatch.setattr(pretrain, "run_directory", waiting)
    train(run)
    assert bool(began) == trains


# --- devices --------------------------------------------------------------------------------------------------------


def test_devices_are_looked_for_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is waited for before the first device is tried, and held until the devices are."""
    locked: list[tuple[str, int]] = []
    flock = fcntl.flock

    def noting(file: Any, kind: int) -> None:
        locked.append((Path(file.name).name, kind))
        flock(file, kind)
        with (tmp_path / "looking").open() as looking, pytest.raises(BlockingIOError):
            flock(looking, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(gpus.fcntl, "flock", noting)
    with gpus.lease(2, ["0", "1", "2"], tmp_path) as taken:
        assert taken == ["0", "1"]
    free = fcntl.LOCK_EX | fcntl.LOCK_NB
    assert locked[0] == ("looking", fcntl.LOCK_EX)
    assert locked[1:] == [("0", free), ("1", free), ("0", fcntl.LOCK_SH), ("1", fcntl.LOCK_SH)]
