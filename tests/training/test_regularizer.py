"""Regularization against the gradient that autograd takes of the penalty."""

from typing import Any

import pytest
import torch
from penalty import penalty
from pydantic import ValidationError
from torch import Size, Tensor

from us3l.params.optimizer import Regularizer
from us3l.training.regularizer import add_gradient, coefficients
from us3l.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")

SHAPES = {
    "backbone.conv1.weight": (64, 3, 3, 3),
    "backbone.bn1.weight": (64,),
    "remainder.weight": (27, 2, 1, 1),
    "remainder.bias": (27,),
    "few.weight": (5, 2, 3, 3),
    "few.bias": (5,),
    "projector.0.weight": (16, 64),
    "projector.1.bias": (16,),
    "predictor.0.weight": (16, 8),
    "predictor.1.weight": (16,),
    "distillation_predictor.3.bias": (8,),
}

BATCH_NORMS = ("backbone.bn1.weight", "predictor.1.weight")


def regularizer(**changes: Any) -> Regularizer:
    return Regularizer.model_validate({"kind": "group", "strength": 5e-5, "alpha": 0.05} | changes)


def relative(channels: int, epoch: int, epochs: int = 400, **changes: Any) -> list[float]:
    """The strengths of the channels of a BatchNorm in units of the regularizer's."""
    made = coefficients({"bn.weight": Size([channels])}, regularizer(**changes), epoch, epochs, False)["bn.weight"]
    return (made / 5e-5).expand(channels).tolist()


@pytest.mark.parametrize("width", [1.0, 0.5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decay": "exponential", "alpha": 0.7},
        {"warmup_epochs": 2},
        {"warmup_epochs": 7},
        {"groups": 3},
        {"kind": "l2"},
        {"by": "input-feature"},
        {"by": "input-feature", "groups": 5, "decay": "exponential", "alpha": 0.7},
        {"kind": "l1-batchnorm", "warmup_epochs": 2},
        {"kind": "group-l1-batchnorm", "warmup_epochs": 2, "alpha": 0.9},
    ],
)
def test_what_is_added_is_the_gradient_of_the_penalty_in_every_epoch(changes: dict[str, Any], width: float) -> None:
    generator, made = torch.Generator().manual_seed(0), regularizer(**changes)
    for epoch in range(10):
        p = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in SHAPES.items()}
        value = penalty(p.items(), made, epoch, 10, width, BATCH_NORMS)
        if value.requires_grad:
            value.backward()
        shapes = {name: each.shape for name, each in p.items()}
        strengths = coefficients(shapes, made, epoch, 10, width == 1.0, BATCH_NORMS)
        for name, each in p.items():
            expected = torch.zeros_like(each) if each.grad is None else each.grad
            gradient = torch.zeros_like(each)
            add_gradient(gradient, strengths[name], each.detach(), made)
            torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=0, msg=name)


@pytest.mark.parametrize(
    ("epoch", "last"), [(0, 1.0), (100, 0.825), (199, 1 - 0.05 * 199 / 200 * 7), (200, 0.65), (399, 0.65)]
)
def test_linear_groups_weaken_evenly_to_the_official_numbers(epoch: int, last: float) -> None:
    expected = torch.linspace(1, last, 8).tolist()
    assert relative(8, epoch) == pytest.approx(expected)
    assert relative(64, epoch) == pytest.approx([each for each in expected for _ in range(8)])


def test_exponential_groups_weaken_by_a_factor() -> None:
    assert relative(8, 200, decay="exponential", alpha=0.5) == pytest.approx([0.5**index for index in range(8)])


@pytest.mark.parametrize(("epoch", "last"), [(0, 1), (199, 1), (200, 0.65)])
def test_a_warmup_of_half_the_epochs_ends_at_full_alpha(epoch: int, last: float) -> None:
    assert relative(8, epoch, warmup_epochs=200)[-1] == pytest.approx(last)


def test_the_ramp_starts_where_the_warmup_ends() -> None:
    assert relative(8, 50, warmup_epochs=100) == pytest.approx([1] * 8)
    assert relative(8, 150, warmup_epochs=100) == pytest.approx(torch.linspace(1, 0.825, 8).tolist())


def test_the_last_group_takes_the_remainder_and_all_of_too_few_channels() -> None:
    assert relative(19, 300)[14:] == pytest.approx([0.65] * 5)
    assert relative(19, 300)[:14] == pytest.approx([1 - 0.05 * (index // 2) for index in range(14)])
    assert relative(7, 300) == pytest.approx([0.65] * 7)


def zeros_of(made: dict[str, Tensor]) -> set[str]:
    return {name for name, strength in made.items() if not strength.any()}


def test_predictors_are_spared_at_full_width_only() -> None:
    shapes = {name: Size(shape) for name, shape in SHAPES.items()}
    predictors = {"predictor.0.weight", "predictor.1.weight", "distillation_predictor.3.bias"}
    assert zeros_of(coefficients(shapes, regularizer(), 3, 10, True)) == predictors
    assert zeros_of(coefficients(shapes, regularizer(), 3, 10, False)) == set()
    assert zeros_of(coefficients(shapes, regularizer(kind="l2"), 3, 10, True)) == set()


def test_gradients_are_added_to_what_is_there() -> None:
    values, there = torch.tensor([-2.0, 0.0, 4.0]), torch.ones(3)
    add_gradient(there, torch.tensor([0.5, 0.5, 0.25]), values, regularizer())
    assert there.tolist() == [-1, 1, 3]
    add_gradient(there, torch.tensor([0.5, 0.5, 0.25]), values, regularizer(kind="l1-batchnorm"))
    assert there.tolist() == [-1.5, 1, 3.25]


def test_group_l1_grows_with_the_channels_and_waits_for_the_end_of_the_warmup() -> None:
    norm, changes = (
        "backbone.bn.weight",
        {"kind": "group-l1-batchnorm", "strength": 2.0, "alpha": 0.5, "warmup_epochs": 3},
    )
    made = [coefficients({norm: Size([8])}, regularizer(**changes), epoch, 10, False, [norm])[norm] for epoch in (2, 3)]
    assert [each.tolist() for each in made] == [[0] * 8, list(range(8))]


@pytest.mark.parametrize("kind", ["l1-batchnorm", "group-l1-batchnorm"])
def test_l1_without_a_batch_norm_in_the_backbone_is_refused(kind: str) -> None:
    """A vision transformer's heads have some."""
    with pytest.raises(UserError, match=f"{kind} needs a backbone with BatchNorms"):
        coefficients({"fc.weight": Size([3, 2])}, regularizer(kind=kind), 0, 10, False, ["projector.1.weight"])


def test_only_group_groups_by_input_feature() -> None:
    with pytest.raises(ValidationError, match="is read by group only, and the kind is l2"):
        regularizer(kind="l2", by="input-feature")


def test_alpha_of_the_growing_group_l1_has_no_bound_but_one() -> None:
    assert regularizer(kind="group-l1-batchnorm", alpha=1.0).alpha == 1
    with pytest.raises(ValidationError, match="the last of 8 groups would grow"):
        regularizer(alpha=1.0)


@pytest.mark.parametrize(("epochs", "ramp_end"), [(5, 2), (11, 5), (401, 200)])
def test_of_an_odd_number_of_epochs_the_ramp_takes_the_smaller_half(epochs: int, ramp_end: int) -> None:
    last = [relative(8, epoch, epochs)[-1] for epoch in range(epochs)]
    assert last == pytest.approx([1 - 0.35 * min(epoch / ramp_end, 1) for epoch in range(epochs)])


def test_a_training_of_one_epoch_has_the_full_slope_at_once() -> None:
    assert relative(8, 0, epochs=1) == pytest.approx([1 - 0.05 * index for index in range(8)])
