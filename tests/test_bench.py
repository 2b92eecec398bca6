"""What `us3l bench` compares comes to the same, and what it reports is what it measured."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from project import ROOT, RUN, Project, params
from torch import Tensor

from us3l.bench import making
from us3l.bench.setting import Setting, setting
from us3l.bench.straightforward.training import Trainer
from us3l.learner import Learner
from us3l.params.studies import Params
from us3l.plan import Plan

CPU = torch.device("cpu")
BATCH = 16


def content(**run: Any) -> dict[str, Any]:
    """A params file with a network of a few channels, on images of CIFAR's size."""
    made = params(**{"batch": {"size": BATCH, "shards": 2}, "optimizer": {"lr": 0.05}} | run)
    view = {
        "resized_crop": {"size": 32, "scale": [0.2, 1.0]},
        "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8},
        "grayscale": 0.2,
        "flip": 0.5,
    }
    views = {
        "normalize": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "pretrain": [view, view],
        "linear": {"resized_crop": {"size": 32, "interpolation": "bicubic"}, "flip": 0.5},
        "test": {"resize": 36, "center_crop": 32},
    }
    made["datasets"]["digits"] = {"source": {"kind": "folder", "train": "train", "test_fraction": 0.5}, "views": views}
    return made


def tiny(**run: Any) -> Setting:
    return setting(Plan(Params.model_validate(content(**run))), "tiny/us3l", CPU, 1, 1, BATCH, BATCH)


METHODS = {
    "simclr": RUN["method"],
    "byol": {"name": "byol", "base": "cosine", "momentum": 0.9, "hidden": 16, "output": 8},
    "other": {**RUN["method"], "base": "cosine", "distillation": "infonce", "distillation_strength": 0.5},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("float64")
def test_the_straightforward_step_learns_what_ours_learns(name: str) -> None:
    regularizer = {"kind": "group", "strength": 0.01, "groups": 3, "warmup_epochs": 1}
    small = tiny(method=METHODS[name], epochs=8, regularizer=regularizer)
    ours, other = making.learner(small), making.trainer(small)
    copy_weights(ours, other)
    views = making.two_views(small)
    for epoch, widths in ((0, [1.0]), (2, [1.0, 0.8, 0.75]), (3, [1.0, 0.6, 0.25]), (5, [1.0])):
        losses = ours.step(making.shards(views, 2), widths, epoch, 0.1)[:, 0]
        expected = other.step(making.plain_shards(views, 2), widths, epoch, 0.1)
        assert losses.tolist() == pytest.approx(expected, abs=1e-9)
    for name, value in other.network.named_parameters():
        assert_close(ours.flat.parameters[name], value)
    encoder = ours.flat.views(ours.teacher.momentum_encoder)
    for value, expected in zip(encoder.values(), other.encoder.parameters(), strict=True):
        assert_close(value, expected)


def copy_weights(source: Learner, target: Trainer) -> None:
    """Online weights and those of the momentum encoder."""
    parameters = dict(target.network.named_parameters())
    for name, value in source.flat.parameters.items():
        parameters[name].data.copy_(value)
    encoder = source.flat.views(source.teacher.momentum_encoder)
    for slow, value in zip(target.encoder.parameters(), encoder.values(), strict=True):
        slow.data.copy_(value)


def assert_close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=1e-9)


def test_the_row_is_trained_in_pieces_that_go_on_from_each_other(tmp_path: Path) -> None:
    epochs = 12
    Project(tmp_path, params(epochs=epochs))
    names = {"DATASET": "digits", "STUDY": "tiny", "RUNS": "us3l", "DEVICE": "cpu", "THREADS": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | names | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    codes, said = [], ""
    for piece in range(8, 80, 4):  # seconds: longer ones for a machine that needs them to start at all
        command = [ROOT / "benchmarks" / "cifar100_row.sh"]
        made = subprocess.run(
            command, cwd=tmp_path, env=environment | {"PIECE": str(piece)}, capture_output=True, text=True
        )
        codes.append(made.returncode)
        said += made.stdout + made.stderr
        if made.returncode != 75:
            break
    assert codes == [75] * (len(codes) - 1) + [0] and len(codes) > 1, said
    assert re.findall(rf"epoch (\d+)/{epochs} ", said) == [str(number + 1) for number in range(epochs)], said
    assert said.endswith((tmp_path / "results/tiny/tables/main.md").read_text())
