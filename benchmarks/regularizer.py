"""The gradient of the group regularizer in a step at one width."""

from collections.abc import Iterator

import torch

from benchmarks import builders
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.setting import OFFICIAL_STEPS, Setting
from benchmarks.straightforward.penalty import penalty
from us3l.training.regularizer import add_gradient

EPOCH = 100  # at which the groups' coefficients differ
WIDTHS_PER_STEP = 3


def cases(setting: Setting) -> Iterator[Case]:
    run, train_step, trainer = setting.run, builders.train_step(setting), builders.trainer(setting)
    regularizer = run.regularizer
    assert regularizer is not None  # as `setting` requires
    epoch = min(EPOCH, run.epochs - 1)
    gradients = torch.zeros_like(train_step.student.weights.values)
    steps = OFFICIAL_STEPS * WIDTHS_PER_STEP

    def ours() -> None:
        """Run an epoch: compute the coefficients of full width and of all others once, then all steps."""
        train_step.decay.forget()
        full, narrower = (train_step.decay.at(epoch, full, train_step.with_grad)[0] for full in (True, False))
        for strengths in (full, narrower, narrower) * OFFICIAL_STEPS:
            add_gradient(gradients, strengths, train_step.student.weights.values, regularizer)

    def straightforward() -> None:
        for width in (1.0, 0.75, 0.5):
            trainer.optimizer.zero_grad(set_to_none=False)
            penalty(trainer.network.named_parameters(), regularizer, epoch, run.epochs, width).backward()

    yield Case(
        name="gradient of the penalty",
        unit="step at one width",
        sides={OURS: Side(ours, steps), STRAIGHTFORWARD: Side(straightforward, WIDTHS_PER_STEP)},
        traffic=4 * gradients.nbytes,
        note=f"{len(gradients):,} parameters; ours with its share of making the coefficients, once in {steps} steps; "
        "bytes are those of gradient (read, written), coefficients and weights",
    )
