"""The official code's numbers, replayed by golden.py as its user runs it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from forks import fork_server
from golden import SMALL_LOSS, TOLERANCE, relative_error

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


def edited(tmp_path: Path, case: dict[str, Any]) -> Path:
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(case))
    return path


def test_another_number_fails(tmp_path: Path) -> None:
    case = json.loads((HERE / "golden/calibrate_eval.json").read_text())[0]
    assert replay(edited(tmp_path, case))[0] == 0
    case["logits_norm"] *= 1 + 2e-8
    code, output = replay(edited(tmp_path, case))
    assert code == 1, output


@pytest.mark.parametrize(
    ("loss", "difference", "holds"),
    [(1.0, 2e-8, False), (1.0, 5e-9, True), (0.002, 2e-10, False), (0.002, 5e-11, True)],
)
def test_a_loss_near_zero_may_be_off_by_rounding_and_no_more(loss: float, difference: float, holds: bool) -> None:
    assert (relative_error(loss + difference, loss, SMALL_LOSS) <= TOLERANCE) == holds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arch": "us_vit_conv_small"}, "the architecture us_vit_conv_small is not supported"),
        ({"ssl": "MoCo"}, "the method MoCo is not supported"),
        ({"criterion": "DINOLoss"}, "the loss DINOLoss is not supported"),
    ],
)
def test_what_is_not_built_is_said(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    case = json.loads((HERE / "golden/simsiam_l2.json").read_text())
    code, output = replay(edited(tmp_path, case | changes))
    assert code == 2
    assert reason in output and "Traceback" not in output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, output = replay(tmp_path / "nosuch.json")
    assert code == 2
    assert "nosuch.json" in output and "Traceback" not in output
