"""The probe of a training: three consecutive steps in epochs that cover its schedule, each from the initial weights.

They are the first ones of the training and the last ones of the other epochs. The first step shows losses, gradients
and the optimizer; the second momentum, the momentum encoder and queues. In the first epoch the state is saved and
loaded between the first two steps. Weights are compared by how far they have moved, since a wrong step is small beside
the weights themselves.

A training magnifies rounding. So the same steps are taken in float64, too, where another order of the same operations
hardly shows.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l.data.stream import Shard, Stream
from us3l.params.runs import Batch, PretrainRun
from us3l.pipeline.probes.comparison import FLOAT64
from us3l.pipeline.probes.outcome import describe, describe_change
from us3l.training.step import TrainStep
from us3l.training.trainer import Trainer

STEPS = 3
IMAGES = 4  # of a shard at least: of two, a BatchNorm makes 1 and -1, whatever they are
NO_STATE = Path(os.devnull, "state")
SHARE = 0.004  # of the images of the training that pass through the probe
OPERATIONS = 1.5e11  # floating-point operations of the probe: some 15 seconds on one core of a CPU
PER_IMAGE = 26  # operations for each multiply-accumulate of the network: two views, forward and backward, all widths


def probe_training(
    run: PretrainRun,
    images: int,
    macs: int,
    build: Callable[[PretrainRun], TrainStep],
    open_stream: Callable[[PretrainRun], Stream],
) -> dict[str, Any]:
    """Return losses, feature_std, gradient norms and the state after each step, by the epoch.

    With them are the initial state, and the decay of each weight in each of the epochs.

    images: number of training images; macs: multiply-accumulates of the widest network on one of them, by which the
    batch is cut. Results do not depend on the number of processes, so that one computes them.
    """
    run = run.model_copy(update={"batch": cut_batch(run, images, macs)})
    stream = open_stream(run)
    batches = {epoch: list(islice(stream.shards(epoch, _first(stream, epoch)), STEPS)) for epoch in points(run)}
    outcome = _outcome(run, build, stream, batches)
    initial = build(run).state()

    def build_exact(run: PretrainRun) -> TrainStep:
        train_step = build(run)
        train_step.load_state(initial)
        return train_step

    with _float64():
        exact = {epoch: [[_double(shard) for shard in shards] for shards in steps] for epoch, steps in batches.items()}
        return {"batch": run.batch.model_dump(), **outcome, FLOAT64: _outcome(run, build_exact, stream, exact)}


def _outcome(
    run: PretrainRun, build: Callable[[PretrainRun], TrainStep], stream: Stream, batches: dict[int, list[list[Shard]]]
) -> dict[str, Any]:
    of_epochs = {f"epoch_{epoch}": _steps(run, build, stream, epoch, steps) for epoch, steps in batches.items()}
    return {"initial": describe(build(run).state()), **of_epochs}


def _first(stream: Stream, epoch: int) -> int:
    return max(0, stream.steps - STEPS) if epoch else 0


@contextmanager
def _float64() -> Iterator[None]:
    """Make new tensors float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _double(shard: Shard) -> Shard:
    views, shuffled = shard.views, shard.shuffled
    return shard._replace(
        views=tuple(map(Tensor.double, views)), shuffled=shuffled and tuple(map(Tensor.double, shuffled))
    )


def points(run: PretrainRun) -> list[int]:
    """Return the epochs to probe: the first two, the last, the first of each quarter, and where a schedule turns."""
    epochs, optimizer = run.epochs, run.optimizer
    quarter = max(1, epochs // 4)
    turns = [epochs // 2, optimizer.warmup_epochs, *optimizer.milestones]
    if run.regularizer:
        turns.append(run.regularizer.warmup_epochs)
    return [epoch for epoch in sorted({0, 1, quarter, 2 * quarter, 3 * quarter, epochs - 1, *turns}) if epoch < epochs]


def cut_batch(run: PretrainRun, images: int, macs: int) -> Batch:
    """Halve the batch, and its shards down to two, until the probe takes little of the training and of time."""
    size, shards = run.batch.size, run.batch.shards
    steps = STEPS * len(points(run))
    largest = min(SHARE * run.epochs * images, OPERATIONS / (PER_IMAGE * macs)) / steps
    while size > largest and size % 2 == 0:
        if size // 2 % shards or size // 2 < IMAGES * shards:
            if shards % 2 or shards == 2:
                break
            shards //= 2
        size //= 2
    return Batch(size=size, shards=shards)


def _steps(
    run: PretrainRun,
    build: Callable[[PretrainRun], TrainStep],
    stream: Stream,
    epoch: int,
    batches: list[list[Shard]],
) -> dict[str, Any]:
    """Train in an epoch; in the first one the second step resumes from a saved state."""
    trainer = Trainer(run, build(run), stream, NO_STATE, math.inf, "probe")
    trainer.epoch, trainer.step = epoch, _first(stream, epoch)
    initial = {name: tensor.clone() for name, tensor in trainer.train_step.state().items()}
    outcomes: dict[str, Any] = {}
    for step, shards in enumerate(batches):
        if epoch == 0 and step == 1:
            trainer = _resumed(trainer, build(run))
        norms: list[float] = []
        trainer.train_step.all_reduce_ = _norms_into(norms)
        trainer.advance(shards)
        outcomes[f"step_{step}"] = {
            "loss_and_feature_std": trainer.totals.tolist(),
            "gradient_norm": norms,
            "state": describe_change(initial, trainer.train_step.state()),
        }
    return outcomes | {"decay": _decay(trainer.train_step, epoch)}


def _decay(train_step: TrainStep, epoch: int) -> dict[str, Any]:
    """Describe the decay of each weight at full width and below."""
    widths = {"widest": True, "narrower": False}
    of_width = {name: train_step.decay.at(epoch, widest, train_step.with_grad)[0] for name, widest in widths.items()}
    return describe(of_width)


def _resumed(trainer: Trainer, train_step: TrainStep) -> Trainer:
    """Save the state of a trainer, and continue from the file with another training step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer.state = Path(folder, "probe.safetensors")
        trainer.save()
        return Trainer(trainer.run, train_step, trainer.stream, trainer.state, math.inf, "probe")


def _norms_into(norms: list[float]) -> Callable[[Tensor], None]:
    """Return what receives the gradients of each width in place of the other processes, and keeps their norms."""
    return lambda gradients: norms.append(float(gradients.norm()))
