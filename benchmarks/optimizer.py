"""The updates of all weights after the gradients: SGD with momentum, and the momentum encoder."""

from collections.abc import Callable, Iterator

import torch

from benchmarks import builders
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.peers import lightly_move, side
from benchmarks.setting import Setting
from benchmarks.straightforward.training import Trainer, move_encoder

STEPS = 10  # in a turn


def cases(setting: Setting) -> Iterator[Case]:
    train_step, trainer = builders.train_step(setting), builders.trainer(setting)
    values, momentum = train_step.student.weights.values, setting.run.method.momentum
    gradients = torch.full_like(values, 1e-3)
    everything = range(len(train_step.student.weights.shapes))
    for parameter in trainer.network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    yield Case(
        name="SGD with momentum",
        unit="step at one width",
        sides={
            OURS: _repeated(lambda: train_step.optimizer.step(values, gradients, None, 1e-3, everything)),
            STRAIGHTFORWARD: _repeated(trainer.optimizer.step),
        },
        traffic=5 * values.nbytes,
        note=f"{len(values):,} parameters; bytes are those of weights, velocity (both read and written) and gradient",
    )
    encoder = train_step.teacher.momentum_encoder
    assert momentum is not None and encoder is not None  # as `setting` requires
    yield Case(
        name="momentum encoder",
        unit="step",
        sides={
            OURS: _repeated(lambda: train_step.teacher.update_momentum_encoder(0)),
            STRAIGHTFORWARD: _repeated(lambda: move_encoder(trainer.encoder, trainer.online, momentum)),
            "lightly": side("lightly", lambda: _lightly(trainer, momentum)),
        },
        traffic=3 * encoder.nbytes,
        note=f"{len(encoder):,} parameters; bytes are those of its weights (read, written) and of the online ones",
    )


def _lightly(trainer: Trainer, momentum: float) -> Side:
    return _repeated(lambda: lightly_move(trainer.encoder, trainer.online, momentum))


def _repeated(step: Callable[[], object]) -> Side:
    def turn() -> None:
        for _ in range(STEPS):
            step()

    return Side(turn, STEPS)
