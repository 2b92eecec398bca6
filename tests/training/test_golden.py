"""The official code's numbers, replayed by golden.py as its user runs it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from forks import fork_server

HERE = Path(__file__).parent.parent
FILES = sorted((HERE / "golden").glob("*.json"))


def replay(path: Path) -> tuple[int, str]:
    process = fork_server().start(["-m", "golden", str(path)], HERE / "support", os.environ)
    output, _ = process.communicate()
    return process.returncode, output


def test_there_are_as_many_files_as_there_were() -> None:
    assert len(FILES) >= 11


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_is_the_official_codes(path: Path) -> None:
    code, output = replay(path)
    assert code == 0, output
    assert output.count("largest relative error") == 1
    assert "skipped" not in output


def edited(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(json.loads((HERE / "golden/simsiam_l2.json").read_text()) | changes))
    return path


def test_another_number_fails(tmp_path: Path) -> None:
    case = json.loads((HERE / "golden/simsiam_l2.json").read_text())
    case["steps"][0]["loss"][0] *= 1 + 2e-8
    code, output = replay(edited(tmp_path, steps=case["steps"]))
    assert code == 1, output


def test_a_loss_near_zero_fails_when_it_is_off_by_more_than_rounding(tmp_path: Path) -> None:
    case = json.loads((HERE / "golden/byol_mbv2.json").read_text())
    assert abs(case["steps"][0]["loss"][1]) < 0.01
    case["steps"][0]["loss"][1] += 2e-10
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(case))
    code, output = replay(path)
    assert code == 1, output


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arch": "us_vit_conv_small"}, "the architecture us_vit_conv_small is not supported"),
        ({"ssl": "MoCo"}, "the method MoCo is not supported"),
        ({"criterion": "DINOLoss"}, "the loss DINOLoss is not supported"),
    ],
)
def test_what_is_not_built_is_said(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    code, output = replay(edited(tmp_path, **changes))
    assert code == 2
    assert reason in output and "Traceback" not in output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, output = replay(tmp_path / "nosuch.json")
    assert code == 2
    assert "nosuch.json" in output and "Traceback" not in output
