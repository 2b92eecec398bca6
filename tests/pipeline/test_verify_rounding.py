"""What rounding explains, and what it does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from us3l.evaluation.metrics import score
from us3l.pipeline.verify.rounding import (
    epoch_differences,
    network_difference,
    same_tensors,
    top5_bounds,
    unexplained,
)
from us3l.pipeline.verify.scratch import TOKEN, scratch

LIMIT = 0.01
LOGITS = np.array([[0.0, 10.0, 9.9], [0.0, 10.0, 9.7], [5.0, 5.0, 5.0]])


@pytest.mark.parametrize(
    ("classes", "images"),
    [
        ([1, 1, 0], []),
        ([2, 1, 2], []),  # 0.1 of 10 below the best: each logit may have moved by 0.1
        ([1, 2, 0], [1]),  # 0.3 below
        ([0, 1, 0], [0]),
        ([1, 1, 3], [2]),  # no class at all
    ],
)
def test_another_class_is_explained_where_its_logit_is_nearly_the_best(classes: list[int], images: list[int]) -> None:
    assert unexplained(np.array(classes, np.uint16), LOGITS, LIMIT).tolist() == images


def test_without_ties_the_bounds_of_top5_are_the_accuracy_itself() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(257, 10)), random.integers(0, 10, 257)
    top5 = score(torch.from_numpy(logits), torch.from_numpy(labels))["top5"]
    assert top5_bounds(labels, logits, 0.0) == (top5, top5)
    low, high = top5_bounds(labels, logits, LIMIT)
    assert low < top5 < high


EPOCHS = [
    {"epoch": 0, "lr": 0.5, "loss": [4.0], "feature_std": [0.9]},
    {"epoch": 1, "lr": 0.25, "loss": [3.0, -0.5], "feature_std": [0.9, 0.8]},
]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"loss": [3.19, -0.5]}, []),
        ({"loss": [3.21, -0.5]}, ["epoch 1: loss [3.21, -0.5] was recorded, [3.0, -0.5] came again"]),
        ({"loss": [3.0]}, ["epoch 1: loss [3.0] was recorded, [3.0, -0.5] came again"]),
        ({"feature_std": [0.9, 0.7]}, ["epoch 1: feature_std [0.9, 0.7] was recorded, [0.9, 0.8] came again"]),
        ({"lr": 0.2500001}, ["epoch 1: lr 0.2500001 of epoch 1 was recorded, 0.25 came again"]),
        ({"epoch": 2}, ["epoch 1: lr 0.25 of epoch 2 was recorded, 0.25 came again"]),
    ],
)
def test_the_course_of_a_training_may_differ_by_a_twentieth(changed: dict[str, object], said: list[str]) -> None:
    assert list(epoch_differences([EPOCHS[0], EPOCHS[1] | changed], EPOCHS)) == said
    assert list(epoch_differences(EPOCHS[:1], EPOCHS)) == ["epochs: 1 were recorded, 2 came again"]


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [
        ("bn1.running_var", 1 + 5e-5, None),
        ("bn1.running_var", 1 + 5e-4, "bn1.running_var differs by more than 0.0004"),
        ("conv1.weight", 1 + 1e-6, "conv1.weight differs by more than 0"),
    ],
)
def test_networks_have_equal_weights_and_nearly_equal_statistics(
    tmp_path: Path, name: str, factor: float, said: str | None
) -> None:
    tensors = {"conv1.weight": np.arange(4, dtype="f4") + 1, "bn1.running_var": np.full(3, 4, "f4")}
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file(tensors, one)
    save_file(tensors | {name: tensors[name] * np.float32(factor)}, other)
    assert network_difference(one, one) is None and same_tensors(one, one)
    assert network_difference(other, one) == said and not same_tensors(one, other)
    save_file({name: tensors[name]}, other)
    assert network_difference(other, one) == "the tensors have other names or shapes"


def test_what_a_verification_left_stays_for_the_next_and_what_anyone_else_did_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = Path("runs/verify-pretrain")

    def left() -> list[str]:
        with pytest.raises(KeyboardInterrupt), scratch(folder):
            found = sorted(path.name for path in folder.iterdir() if path.name != TOKEN)
            (folder / "result").touch()
            raise KeyboardInterrupt
        return found

    assert left() == [] and left() == ["result"]
    (folder / TOKEN).write_text("guessed")
    assert left() == []
    (tmp_path / "cache").rename(tmp_path / "of another person")
    assert left() == []
    with scratch(folder):
        assert (folder / "result").exists()
    assert not folder.exists() and not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
