"""A training with a monitor: the same weights as without, through any interruption; and what its record says."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from project import params
from short_probes import shorten_probes

from us3l.data.store import DatasetSource, SplitSource, write_store
from us3l.params.params import Params
from us3l.params.sampling import FixedWidths, Sampling
from us3l.pipeline.forms import Trained, wrong_form
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.stages import pretrain
from us3l.pipeline.verify.comparison import OF_ROUNDING, _first_difference
from us3l.pipeline.verify.rederive import Rederived
from us3l.pipeline.watching.monitor import monitored_widths
from us3l.training.trainer import Trainer
from us3l.utils import checkpoint
from us3l.utils.distributed import World
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

WORLD = World(0, 1, torch.device("cpu"))
EPOCHS, IMAGES, BATCH = 3, 16, 8
Made = tuple[dict[str, Any], dict[str, bytes]]
Train = Callable[..., Made]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train in a folder of its own, on noise; the record, and the weights."""
    shorten_probes(monkeypatch)

    def run(name: str, classes: int = 2, **changes: Any) -> Made:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        content = params(**{"epochs": EPOCHS, "batch": {"size": BATCH, "shards": 2}, **changes})
        planned = Plan(Params.model_validate(content)).run("tiny", "us3l")
        if not planned.data.folder.exists():
            images = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 1), np.uint8)
            split = SplitSource(np.arange(IMAGES) % classes, images)
            write_store(planned.data.folder, DatasetSource(tuple("ab"[:classes]), (8, 8, 1), split, split))
        job = RunStage(planned, "pretrain", 0)
        torch.manual_seed(5)
        pretrain.pretrain(job, WORLD, Path("runs"), math.inf)
        assert wrong_form(job.record, read_record(job.record), Trained) == []
        weights, _ = checkpoint.load(planned.checkpoint(0))
        weights["random state"] = torch.get_rng_state()  # which layers of a user's network may draw from
        return read_record(job.record), {key: tensor.numpy().tobytes() for key, tensor in weights.items()}

    return run


MONITORED = {"monitor": {"every": 2}, "metrics": {"every": 1}}


def test_weights_are_the_same_with_a_monitor_and_without(train: Train) -> None:
    plain, weights = train("plain")
    seen, monitored_weights = train("monitored", **MONITORED)
    assert monitored_weights == weights
    assert "monitor" not in plain and [look["epoch"] for look in seen["monitor"]] == [1, 2]
    for look in seen["monitor"]:
        assert look["widths"] == [1.0, 0.625, 0.25]
        assert {len(look[key]) for key in ("knn", "rank", "spread")} == {3} and min(look["rank"]) > 1
    assert seen["fingerprint"] == plain["fingerprint"], "a monitor added later leaves a training up to date"
    assert [each["loss"] for each in seen["epochs"]] == [each["loss"] for each in plain["epochs"]]


@pytest.mark.parametrize(("saved", "killed"), [((0, 1), (1, 1)), ((1, 1), (2, 1)), ((2, 1), (2, 2))])
def test_a_training_that_is_killed_ends_as_one_that_is_not(
    train: Train, monkeypatch: pytest.MonkeyPatch, saved: tuple[int, int], killed: tuple[int, int]
) -> None:
    """Also where it is killed after a look that no saved state knows of."""
    whole, weights = train("whole", **MONITORED)
    run_to_the_end = Trainer.run_to_the_end
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_to_the_end", lambda trainer: run_to_the_end(broken(trainer, saved, killed)))
        with pytest.raises(KeyboardInterrupt):
            train("parts", **MONITORED)
    seen, weights_again = train("parts", **MONITORED)
    assert weights_again | {"random state": b""} == weights | {"random state": b""}, "the probe is not made again"
    assert seen["monitor"] == whole["monitor"]


def broken(trainer: Trainer, saved: tuple[int, int], killed: tuple[int, int]) -> Trainer:
    """Have a training saved after one step and killed after another, by epoch and step."""

    class Killer:
        def step(self) -> None:
            if (trainer.epoch, trainer.step) == saved:
                trainer.save()
            if (trainer.epoch, trainer.step) == killed:
                raise KeyboardInterrupt

        def epoch(self) -> None:
            pass

    trainer.watchers.append(Killer())
    return trainer


def test_without_labels_a_monitor_sees_what_needs_none_and_says_so(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, _ = train("one class", classes=1, **MONITORED)
    assert all("knn" not in look and len(look["rank"]) == 3 for look in seen["monitor"])
    said = "monitor: no nearest neighbours, since the images have no labels; effective rank and spread alone"
    assert capsys.readouterr().err.count(said) == 1


@pytest.mark.parametrize("stops", [True, False])
def test_a_collapse_ends_a_training_that_is_to_stop_then(
    train: Train, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    monkeypatch.setattr("us3l.training.step.feature_std", lambda embeddings: embeddings.new_tensor(0.02))
    settings = {"monitor": {"every": 9, "stop_on_collapse": stops}}
    if stops:
        what = "tiny us3l seed 0: the embeddings have collapsed in epoch 1, to a spread of 0.0"
        with pytest.raises(UserError, match=f"^{what}"):
            train("collapsed", **settings)
    assert stops or len(train("collapsed", **settings)[0]["epochs"]) == EPOCHS


@pytest.mark.parametrize(
    ("sampling", "widths"),
    [
        (Sampling(), [1.0, 0.625, 0.25]),
        (Sampling(range=(0.5, 0.5), widths_per_step=1), [0.5]),
        (FixedWidths(widths=[0.25, 0.5, 0.75, 1.0]), [1.0, 0.75, 0.25]),
    ],
)
def test_the_widest_a_middle_and_the_narrowest_width_are_looked_at(sampling: Any, widths: list[float]) -> None:
    assert monitored_widths(sampling) == widths


SEEN = [{"epoch": 1, "widths": [1.0], "knn": [90.0], "rank": [5.0], "spread": [0.5]}]


@pytest.mark.parametrize(
    ("recorded", "again", "is_wrong"),
    [(None, SEEN, False), (SEEN, SEEN, False), (SEEN, [], True), (SEEN, None, True)],
    ids=["a monitor since", "the same", "invented", "no monitor any more"],
)
def test_verify_compares_what_a_recorded_monitor_saw(recorded: Any, again: Any, is_wrong: bool, tmp_path: Path) -> None:
    sides = ({"seed": 0} | ({} if seen is None else {"monitor": seen}) for seen in (recorded, again))
    rederived = Rederived(cast(RunStage, None), tmp_path / "seed0.json", tmp_path, *sides)
    assert bool(_first_difference(rederived, ())) == is_wrong
    assert not _first_difference(rederived, OF_ROUNDING), "other hardware rounds otherwise"
