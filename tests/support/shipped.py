"""A small project whose networks are exported: an untrained network and what is made of it, in a few seconds."""

import sys
from pathlib import Path
from typing import Any

import pytest
from project import RUN, Project, params

from us3l.cli import main

UNTRAINED = {"kind": "untrained", "dataset": "digits", "backbone": "small-resnet", "resources": {"gpus": 0}}


def content(widths: tuple[float, ...] = (1.0, 0.25)) -> dict[str, Any]:
    """Runs whose widths are a range, whose networks are pruned, two fixed widths, and one that is never trained."""
    made = params()
    made["datasets"]["digits"]["source"]["test_fraction"] = 0.7  # enough images to learn from
    study = made["studies"]["tiny"]
    study["widths"] = list(widths)
    study["runs"] = {
        "us3l": UNTRAINED,
        "cut": {"kind": "prune", "weights_from": "us3l", "criterion": "filters"},
        "missing": RUN,
    }
    made["protocols"]["quick"] = {"epochs": 20, "batch_size": 32, "optimizer": {"lr": 0.1}}
    made["protocols"]["near"] = {"kind": "knn", "neighbours": 5}
    made["studies"]["votes"] = study | {
        "protocol": "near",
        "runs": {"near": {"kind": "reuse", "weights_from": "tiny/us3l", "dataset": "digits"}},
        "tables": {"main": {"title": "Near", "rows": [{"label": "Near", "runs": "near"}]}},
    }
    return made


def make(folder: Path, made: dict[str, Any]) -> Project:
    """Write the project, and run the stages of what it ships."""
    project = Project(folder, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(patch, "prepare", "digits")
        for stage in ("pretrain", "calibrate", "linear"):
            run(patch, stage, "tiny", "us3l", "0")
    return project


def run(patch: pytest.MonkeyPatch, *command: str) -> None:
    patch.setattr(sys, "argv", ["us3l", *command])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, command
