"""The official code's numbers, replayed by golden.py as its user runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent.parent
FILES = sorted((HERE / "golden").glob("*.json"))


def replay(*paths: Path) -> tuple[int, str]:
    command = [sys.executable, str(HERE / "support" / "golden.py"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_number_is_the_official_codes() -> None:
    code, output = replay(*FILES)
    assert code == 0, output
    assert output.count("largest relative error") == len(FILES) >= 11
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
