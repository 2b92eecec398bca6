"""What moves all weights once the gradients are there: SGD with momentum, and the momentum encoder."""

from collections.abc import Callable, Iterator

import torch

from benchmarks import making
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.peers import lightly_move, side
from benchmarks.setting import Setting
from benchmarks.straightforward.training import Trainer, move_encoder

MANY = 10  # steps in a turn


def cases(setting: Setting) -> Iterator[Case]:
    train_step, trainer = making.train_step(setting), making.trainer(setting)
    values, momentum = train_step.student.weights.values, setting.run.method.momentum
    gradients = torch.full_like(values, 1e-3)
    everything = range(len(train_step.student.weights.shapes))
    for parameter in trainer.network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    yield Case(
        name="SGD with momentum",
        unit="step at one width",
        sides={
            OURS: _many(lambda: train_step.optimizer.step(values, gradients, None, 1e-3, everything)),
            STRAIGHTFORWARD: _many(trainer.optimizer.step),
        },
        traffic=5 * values.nbytes,
        note=f"{len(values):,} parameters; bytes are those of weights, velocity (both read and written) and gradient",
    )
    moved = train_step.teacher.momentum_encoder
    yield Case(
        name="momentum encoder",
        unit="step",
        sides={
            OURS: _many(lambda: train_step.teacher.update_momentum_encoder(0)),
            STRAIGHTFORWARD: _many(lambda: move_encoder(trainer.encoder, trainer.online, momentum)),
            "lightly": side("lightly", lambda: _lightly(trainer, momentum)),
        },
        traffic=3 * moved.nbytes,
        note=f"{len(moved):,} parameters; bytes are those of its weights (read, written) and of the online ones",
    )


def _lightly(trainer: Trainer, momentum: float) -> Side:
    return _many(lambda: lightly_move(trainer.encoder, trainer.online, momentum))


def _many(step: Callable[[], object]) -> Side:
    def turn() -> None:
        for _ in range(MANY):
            step()

    return Side(turn, MANY)
