"""Learning rates and widths over a training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from project import params
from scipy.stats import kstest

from us3l.models.backbones.backbone import Backbone
from us3l.params.optimizer import Optimizer
from us3l.params.runs import PretrainRun
from us3l.params.sampling import FixedWidths, Sampling
from us3l.pipeline.stages import pretrain
from us3l.training.build import build_train_step
from us3l.training.lr_schedule import learning_rate
from us3l.training.step import TrainStep
from us3l.training.width_sampling import min_width, probe_widths, sample
from us3l.utils.distributed import World
from us3l.utils.records import read_record

# --- learning rates -------------------------------------------------------------------------------------------------


def rates(epochs: int, **optimizer: Any) -> list[float]:
    made = Optimizer.model_validate({"lr": 0.5} | optimizer)
    return [learning_rate(made, epoch, epochs) for epoch in range(epochs)]


def test_cosine_goes_down_from_the_full_rate_and_ends_above_zero() -> None:
    assert rates(400) == pytest.approx([0.5 * 0.5 * (1 + math.cos(math.pi * epoch / 400)) for epoch in range(400)])
    assert rates(4) == pytest.approx([0.5, 0.25 + 0.125 * 2**0.5, 0.25, 0.25 - 0.125 * 2**0.5])
    assert rates(1) == [0.5]


def test_warmup_rises_linearly_from_zero_and_the_cosine_takes_the_epochs_after_it() -> None:
    assert rates(14, warmup_epochs=4)[:4] == pytest.approx([0, 0.125, 0.25, 0.375])
    assert rates(14, warmup_epochs=4)[4:] == pytest.approx(rates(10))


def test_multistep_divides_by_ten_from_each_milestone_on() -> None:
    steps = rates(100, lr=30, schedule="multistep", milestones=[60, 80])
    assert steps == pytest.approx([30] * 60 + [3] * 20 + [0.3] * 20)


def test_multistep_begins_with_the_warmup() -> None:
    steps = rates(10, schedule="multistep", milestones=[5], warmup_epochs=2)
    assert steps == pytest.approx([0, 0.25, 0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.05])


def test_a_constant_rate_is_constant_after_its_warmup() -> None:
    assert rates(5, schedule="constant", warmup_epochs=2) == pytest.approx([0, 0.25, 0.5, 0.5, 0.5])


def test_a_rate_by_the_step_goes_down_between_epochs_too() -> None:
    """MoCo v3's: the warm-up and the cosine at fractions of epochs (official main_moco_ofa_ddp.py)."""
    made = Optimizer(lr=0.5, warmup_epochs=2)
    assert [learning_rate(made, epoch, 10) for epoch in (0.25, 1.5, 2.0)] == pytest.approx([0.0625, 0.375, 0.5])
    assert learning_rate(made, 7.3, 10) == pytest.approx(0.25 * (1 + math.cos(math.pi * 5.3 / 8)))
    assert 0 < learning_rate(made, 9.99, 10) < 1e-5


@pytest.mark.parametrize("rate", ["step", "epoch"])
def test_a_training_changes_its_rate_as_it_says_and_tells_the_step_how_far_it_is(
    rate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Callable[..., tuple[int, str, str]]
) -> None:
    seen = []

    def step(self: TrainStep, shards: Any, widths: list[float], epoch: float, lr: float) -> torch.Tensor:
        seen.append((epoch, lr))
        return torch.ones(len(widths), 2)

    monkeypatch.setattr(TrainStep, "__call__", step)
    monkeypatch.setattr(pretrain, "probe_training", lambda *inputs: {})
    monkeypatch.chdir(tmp_path)
    optimizer = {"lr": 0.5, "rate": rate, "warmup_epochs": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params(epochs=3, optimizer=optimizer)))
    for command in (("prepare", "digits"), ("pretrain", "tiny", "us3l", "0")):
        code, _, message = us3l(*command)
        assert code == 0, message
    steps = len(seen) // 3
    recorded = read_record(Path("results/tiny/pretrain/us3l/seed0.json"))["epochs"]
    assert [each["lr"] for each in recorded] == [lr for _, lr in seen[::steps]]
    assert [epoch for epoch, _ in seen] == pytest.approx([number / steps for number in range(3 * steps)])
    for epoch, lr in seen:
        now = epoch if rate == "step" else int(epoch)
        assert lr == pytest.approx(0.5 * (now if now < 1 else (1 + math.cos(math.pi * (now - 1) / 2)) / 2))


@pytest.mark.parametrize("momentum", [0.9, 0.996])
def test_momentum_comes_to_rest_on_a_cosine(momentum: float) -> None:
    """MoCo v3 (arXiv 2104.02057): m = 1 - (1 - m0) (cos(pi k / K) + 1) / 2 after k of K steps."""
    record = {
        "method": {"name": "byol", "base_loss": "cosine", "momentum": momentum, "momentum_schedule": "cosine"},
        "dataset": "noise",
        "backbone": "small-resnet",
        "epochs": 8,
        "batch": {"size": 8},
        "optimizer": {"lr": 1.0},
    }
    record["method"] |= {"projector": {"hidden": 4, "output": 2}}
    world = World(0, 1, torch.device("cpu"))
    run = PretrainRun.model_validate(record)
    teacher = build_train_step(run, Backbone(run.backbone, 3), 5, 0, world).teacher
    for epoch in (0, 0.3, 4, 7.9, 8):
        teacher.momentum_encoder.fill_(1.0)
        teacher.student.weights.values.zero_()
        teacher.update_momentum_encoder(epoch)
        m = 1 - (1 - momentum) * (math.cos(math.pi * epoch / 8) + 1) / 2
        assert teacher.momentum_encoder.unique().tolist() == pytest.approx([m], abs=1e-7)


# --- widths ---------------------------------------------------------------------------------------------------------


def sampling(**changes: Any) -> Sampling:
    return Sampling.model_validate(changes)


def widths(epoch: int = 350, epochs: int = 400, seed: int = 0, steps: int = 50, **changes: Any) -> list[list[float]]:
    return [sample(sampling(**changes), epoch, epochs, seed, step) for step in range(steps)]


def test_dynamic_sampling_goes_down_in_quarters() -> None:
    low = [min_width(sampling(), epoch, 400) for epoch in range(400)]
    assert low == pytest.approx([1.0] * 100 + [0.75] * 100 + [0.5] * 100 + [0.25] * 100)
    low = [min_width(sampling(range=(0.4, 0.7)), epoch, 8) for epoch in range(8)]
    assert low == pytest.approx([0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.4])


def test_the_last_quarter_lasts_until_the_end() -> None:
    assert [min_width(sampling(), epoch, 7) for epoch in range(7)] == [1.0, 0.75, 0.5, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 6, 7, 101, 102, 103])
def test_whatever_the_number_of_epochs_no_width_leaves_the_range(epochs: int) -> None:
    low = [min_width(sampling(), epoch, epochs) for epoch in range(epochs)]
    assert low == sorted(low, reverse=True)
    assert set(low) <= {1.0, 0.75, 0.5, 0.25}
    assert low[0] == 1.0
    assert epochs < 4 or low[-1] == 0.25
    drawn = [width for epoch in range(epochs) for step in widths(epoch, epochs, steps=3) for width in step]
    assert 0.25 <= min(drawn) <= max(drawn) == 1.0


def test_the_first_quarter_trains_the_widest_network_alone() -> None:
    assert widths(epoch=99) == [[1.0]] * 50
    assert widths(epoch=0, range=(0.25, 0.5), rule="uniform") == [[0.5]] * 50
    assert widths(epoch=3, range=(0.5, 0.5), widths_per_step=1) == [[0.5]] * 50


def test_a_constant_schedule_starts_with_the_whole_range() -> None:
    assert {step[-1] for step in widths(epoch=0, schedule="constant")} == {0.25}


@pytest.mark.parametrize("widths_per_step", [2, 3, 4, 7])
def test_the_sandwich_has_both_ends_once_and_different_widths_between_them(widths_per_step: int) -> None:
    for step in widths(widths_per_step=widths_per_step):
        assert step == sorted(step, reverse=True)
        assert (step[0], step[-1]) == (1.0, 0.25)
        assert len(set(step)) == len(step) == widths_per_step


@pytest.mark.parametrize("widths_per_step", [1, 2, 5])
def test_the_uniform_rule_draws_all_widths_widest_first(widths_per_step: int) -> None:
    drawn = widths(rule="uniform", widths_per_step=widths_per_step)
    assert all(step == sorted(step, reverse=True) and len(step) == widths_per_step for step in drawn)
    assert len({width for step in drawn for width in step}) == 50 * widths_per_step


def test_widths_do_not_depend_on_what_was_drawn_before() -> None:
    """So processes agree on them, and a training that is resumed."""
    torch.manual_seed(1)
    forwards = widths()
    torch.manual_seed(2)
    assert [sample(sampling(), 350, 400, 0, step) for step in reversed(range(50))] == forwards[::-1]


def test_steps_epochs_and_seeds_have_widths_of_their_own() -> None:
    drawn = [step[1] for where in ({}, {"epoch": 351}, {"seed": 1}) for step in widths(**where)]
    assert len(set(drawn)) == 150


@pytest.mark.parametrize(("rule", "widths_per_step"), [("sandwich", 3), ("sandwich", 4), ("uniform", 3)])
def test_drawn_widths_are_uniform_over_the_range_of_the_quarter(rule: str, widths_per_step: int) -> None:
    ends = 2 if rule == "sandwich" else 0
    for epoch, low in ((150, 0.75), (350, 0.25)):
        steps = widths(epoch, steps=1000, rule=rule, widths_per_step=widths_per_step)
        drawn = [width for step in steps for width in (step[1:-1] if ends else step)]
        assert len(drawn) == 1000 * (widths_per_step - ends)
        assert kstest(drawn, "uniform", (low, 1 - low)).pvalue > 0.01


def test_fixed_widths_are_all_in_every_step_widest_first() -> None:
    """Whatever their order in params.yaml, or the epoch."""
    made = FixedWidths(widths=[0.5, 1.0, 0.25])
    assert {tuple(sample(made, epoch, 4, 0, step)) for epoch in range(4) for step in range(3)} == {(1.0, 0.5, 0.25)}
    assert (made.widest, set(made.switchable_bn_widths)) == (1.0, {0.5, 0.25})
    assert FixedWidths(widths=[0.5, 1.0], batch_norm="shared").switchable_bn_widths == ()


def test_the_widths_to_try_are_those_that_are_fixed_or_the_ends_of_a_range_and_odd_ones_between() -> None:
    assert probe_widths(FixedWidths(widths=[0.5, 1.0]), 16) == [0.5, 1.0]
    assert probe_widths(Sampling(range=(0.5, 0.5)), 16) == [0.5]
    low, *inner, high = probe_widths(Sampling(range=(0.25, 1.0)), 16)
    assert (low, high, len(inner)) == (0.25, 1.0, 16)
    assert np.diff([low, *inner, high]) == pytest.approx(0.75 / 17, abs=1e-4)
    assert not any((64 * width).is_integer() for width in inner)
