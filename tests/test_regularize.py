"""Group regularization as decay against the gradient that autograd takes of the penalty."""

from typing import Any

import pytest
import torch
from penalty import penalty
from torch import Size, Tensor

from us3l.params import Regularizer
from us3l.regularize import coefficients

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
    ],
)
def test_decay_is_the_gradient_of_the_penalty_in_every_epoch(changes: dict[str, Any], width: float) -> None:
    generator, made = torch.Generator().manual_seed(0), regularizer(**changes)
    for epoch in range(10):
        p = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in SHAPES.items()}
        penalty(p.items(), made, epoch, 10, width).backward()
        strengths = coefficients({name: each.shape for name, each in p.items()}, made, epoch, 10, width == 1.0)
        for name, each in p.items():
            expected = torch.zeros_like(each) if each.grad is None else each.grad
            torch.testing.assert_close(2 * strengths[name] * each.detach(), expected, rtol=1e-13, atol=0, msg=name)


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
