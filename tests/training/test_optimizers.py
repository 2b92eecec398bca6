"""The optimizers of a flat tensor against torch.optim on tensors of their own, some of which get gradients late."""

from typing import Any

import pytest
import torch
from torch import Tensor

from us3l.params.optimizer import TrainingOptimizer
from us3l.training.optimizers import SGD, AdamW

pytestmark = pytest.mark.usefixtures("float64")
SHAPES = [(3, 4), (5,), (2, 3, 1, 1), (7,)]
SIZES = [12, 5, 6, 7]
FIRST_GRADIENT = [0, 3, 1, 99]  # the step that each parameter gets its first gradient in: the last one never does


def rounds(number: int) -> list[Tensor | None]:
    """The gradients of a step; a parameter that once had one has at least zeros from then on."""
    generator = torch.Generator().manual_seed(number)
    made = [torch.randn(shape, generator=generator) * 10.0 ** (number % 5 - 3) for shape in SHAPES]
    made[1] *= number % 2
    return [g if number >= first else None for g, first in zip(made, FIRST_GRADIENT, strict=True)]


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.0, "weight_decay": 0.1},
        {"kind": "adamw"},
        {"kind": "adamw", "weight_decay": 0.1},
        {"kind": "adamw", "weight_decay": 0.3, "betas": (0.5, 0.8)},
    ],
)
def test_ten_steps_are_those_of_pytorch(settings: dict[str, Any]) -> None:
    of = TrainingOptimizer.model_validate({"lr": 1.0} | settings)
    generator = torch.Generator().manual_seed(100)
    theirs = [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]
    values = torch.cat([p.detach().flatten() for p in theirs])
    start = values.clone()
    if of.kind == "adamw":
        ours = AdamW(of, values, SIZES)
        expected = torch.optim.AdamW(theirs, betas=of.betas, weight_decay=of.weight_decay, foreach=False)
    else:
        ours = SGD(of, values, SIZES)
        expected = torch.optim.SGD(theirs, 1.0, of.momentum, weight_decay=of.weight_decay, foreach=False)
    for number in range(10):
        lr = 0.1 / (1 + number)
        for p, gradient in zip(theirs, rounds(number), strict=True):
            p.grad = gradient
        expected.param_groups[0]["lr"] = lr
        expected.step()
        moving = [index for index, gradient in enumerate(rounds(number)) if gradient is not None]
        gradients = [torch.zeros(s) if g is None else g for g, s in zip(rounds(number), SHAPES, strict=True)]
        decays = [torch.full((size,), of.weight_decay * (index in moving)) for index, size in enumerate(SIZES)]
        decay = torch.cat(decays) if of.weight_decay else None
        ours.step(values, torch.cat([g.flatten() for g in gradients]), decay, lr, moving)
        torch.testing.assert_close(values, torch.cat([p.detach().flatten() for p in theirs]), rtol=0, atol=1e-12)
    assert torch.equal(values[-7:], start[-7:])
    assert (values[:-7] - start[:-7]).abs().min() > 1e-6
