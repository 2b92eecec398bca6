"""Probes tell edits that change results from those that do not: a sample of the edits of docs/probes.md."""

from pathlib import Path

import pytest
from edits import PACKAGE, Edit
from mutations import BITWISE, DIFFERS, MUTATIONS, REFACTORINGS, REORDERINGS, ROUNDING, VARIANTS, Bench

RUN = "simclr"
CAUGHT = {
    "regularizer.alpha, epochs // 2": "pretrain float64.epoch_",
    "(3 - quarter) * (high - low) / 3": "pretrain float64.epoch_",
    "step = 1 - momentum": "pretrain float64.epoch_0",
    "self._gradients.zero_()": "pretrain float64.epoch_",
    "norm.momentum = calibration.momentum": "calibrate w025.statistics",
    "add_(parameter, alpha=decay)": "linear w025.logits",
}
EQUAL = (
    "addcmul_(coefficients, values, value=2)",
    "return torch.cat(gradients)",
    "for (x,) in images.augmented(batches, [views.linear], views.normalize, key):\n            x = x.",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("mutations"), [RUN])


@pytest.mark.parametrize("old", CAUGHT)
def test_a_mutation_is_caught(bench: Bench, old: str) -> None:
    judged = bench.judge(edit(MUTATIONS, old))
    assert judged.verdict == DIFFERS, judged.output
    assert judged.by.startswith(CAUGHT[old])


@pytest.mark.parametrize("old", EQUAL)
def test_a_refactoring_is_equal_bitwise(bench: Bench, old: str) -> None:
    judged = bench.judge(edit(REFACTORINGS, old))
    assert judged.verdict == BITWISE, judged.output


@pytest.mark.parametrize("old", [REORDERINGS[0].old, REORDERINGS[3].old])
def test_another_order_of_the_same_operations_is_equal_within_rounding(bench: Bench, old: str) -> None:
    judged = bench.judge(edit(REORDERINGS, old))
    assert judged.verdict == ROUNDING, judged.output


@pytest.mark.parametrize("edit", MUTATIONS + REFACTORINGS + REORDERINGS, ids=lambda edit: edit.module)
def test_an_edit_finds_its_text_once_in_its_module(edit: Edit) -> None:
    assert Path(PACKAGE, edit.module).read_text().count(edit.old) == 1
    assert edit.old != edit.new and edit.run in VARIANTS


def edit(edits: list[Edit], old: str) -> Edit:
    [found] = [each for each in edits if each.old == old]
    return found._replace(run=RUN)
