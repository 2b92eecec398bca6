"""The probe of a training: its first three steps, and a second step in epochs that cover its schedule.

The first step shows losses, gradients and the optimizer; the second, after the state has been saved and loaded,
momentum, the momentum encoder and queues. In other epochs the last step is taken from the state after the first: it
shows all that, and what the schedule makes of it. Weights are compared by how far they have moved, since a wrong step
is small beside the weights themselves. Batches are cut, and pixels are left out, so that a probe takes little time.

A training magnifies rounding. So the same steps are taken in float64, too, where another order of the same operations
hardly shows; that is where the state is saved and loaded.
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
from us3l.pipeline.probes.outcome import describe, describe_change, flattened
from us3l.training.step import TrainStep
from us3l.training.trainer import Trainer

Batches = dict[int, list[list[Shard]]]  # by epoch: the shards of each step

STEPS = 3  # in the first epoch
IMAGES = 4  # of a shard at least: of two, a BatchNorm makes 1 and -1, whatever they are
NO_STATE = Path(os.devnull, "state")
SHARE = 0.004  # of the images of the training that pass through the probe
OPERATIONS = 5e10  # floating-point operations of the probe in float32: some 2 seconds on one core of a CPU
PER_IMAGE = 26  # operations for each multiply-accumulate of the network: two views, forward and backward, all widths


def probe_training(
    run: PretrainRun,
    images: int,
    side: int | None,
    macs: int,
    build: Callable[[PretrainRun], TrainStep],
    open_stream: Callable[[PretrainRun], Stream],
) -> dict[str, Any]:
    """Return losses, feature_std, gradient norms and the state after each step, by the epoch.

    With them are the views, the initial state, and the decay of each weight in each of the epochs.

    images: number of training images; side: see `thin_out`; macs: multiply-accumulates of the widest network on a view
    after that, by which the batch is cut. Results do not depend on the number of processes, so that one computes them.
    """
    run = run.model_copy(update={"batch": cut_batch(run, images, macs)})
    stream, train_step = open_stream(run), build(run)
    initial = _copy(train_step.state())
    full = {epoch: list(islice(stream.shards(epoch, _first(stream, epoch)), STEPS)) for epoch in points(run)}
    batches = _mapped(full, lambda view: thin_out(view, side))
    outcome = _outcome(run, train_step, stream, batches, lambda trainer: trainer)
    with _float64():
        train_step = build(run)
        train_step.load_state(initial)
        exact = _mapped(batches, Tensor.double)
        in_float64 = _outcome(run, train_step, stream, exact, lambda trainer: _resumed(trainer, build(run)))
    views = {f"epoch_{epoch}": describe({"views": flattened(_views(steps))}) for epoch, steps in full.items()}
    return {"batch": run.batch.model_dump(), "views": views, **outcome, FLOAT64: in_float64}


def thin_out(views: Tensor, side: int | None) -> Tensor:
    """Leave out rows and columns of views [B, C, H, W] so that not many more than `side` remain; None: all of them."""
    step = max(1, min(views.shape[-2:]) // side) if side else 1
    return views[..., ::step, ::step].contiguous(memory_format=torch.channels_last)


def _mapped(batches: Batches, function: Callable[[Tensor], Tensor]) -> Batches:
    """Apply a function to the views in batches."""

    def of_shard(shard: Shard) -> Shard:
        views, shuffled = shard.views, shard.shuffled
        return shard._replace(
            views=tuple(map(function, views)), shuffled=tuple(map(function, shuffled)) if shuffled else None
        )

    return {epoch: [[of_shard(shard) for shard in shards] for shards in steps] for epoch, steps in batches.items()}


def _views(steps: list[list[Shard]]) -> list[Tensor]:
    return [view for shards in steps for shard in shards for view in (*shard.views, *(shard.shuffled or ()))]


def _outcome(
    run: PretrainRun,
    train_step: TrainStep,
    stream: Stream,
    batches: Batches,
    interrupt: Callable[[Trainer], Trainer],
) -> dict[str, Any]:
    initial = _copy(train_step.state())
    trainer = _trainer(run, train_step, stream, 0)
    first = {"step_0": _advance(trainer, batches[0][0], initial)}
    second = _copy(train_step.state())
    trainer = interrupt(trainer)
    first |= {f"step_{step}": _advance(trainer, shards, initial) for step, shards in enumerate(batches[0][1:], 1)}
    outcome = {"initial": describe(initial), "epoch_0": first | _decay(train_step, 0)}
    for epoch in [*batches][1:]:
        train_step.load_state(second)
        trainer = _trainer(run, train_step, stream, epoch)
        step = _advance(trainer, batches[epoch][0], second)
        outcome[f"epoch_{epoch}"] = {"step_1": step} | _decay(train_step, epoch)
    return outcome


def _trainer(run: PretrainRun, train_step: TrainStep, stream: Stream, epoch: int) -> Trainer:
    trainer = Trainer(run, train_step, stream, NO_STATE, math.inf, "probe")
    trainer.epoch, trainer.step = epoch, _first(stream, epoch)
    return trainer


def _advance(trainer: Trainer, shards: list[Shard], before: dict[str, Tensor]) -> dict[str, Any]:
    """Take a step; describe it, and how far the state is then from `before`."""
    norms: list[float] = []
    trainer.train_step.all_reduce_ = _norms_into(norms)
    trainer.advance(shards)
    return {
        "loss_and_feature_std": trainer.totals.tolist(),
        "gradient_norm": norms,
        "state": describe_change(before, trainer.train_step.state()),
    }


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _first(stream: Stream, epoch: int) -> int:
    return stream.steps - 1 if epoch else 0


@contextmanager
def _float64() -> Iterator[None]:
    """Make new tensors float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
    steps = STEPS + len(points(run)) - 1
    largest = min(SHARE * run.epochs * images, OPERATIONS / (PER_IMAGE * macs)) / steps
    while size > largest and size % 2 == 0:
        if size // 2 % shards or size // 2 < IMAGES * shards:
            if shards % 2 or shards == 2:
                break
            shards //= 2
        size //= 2
    return Batch(size=size, shards=shards)


def _decay(train_step: TrainStep, epoch: int) -> dict[str, Any]:
    """Describe the decay of each weight at full width and below."""
    widths = {"widest": True, "narrower": False}
    of_width = {name: train_step.decay.at(epoch, widest, train_step.with_grad)[0] for name, widest in widths.items()}
    return {"decay": describe(of_width)}


def _resumed(trainer: Trainer, train_step: TrainStep) -> Trainer:
    """Save the state of a trainer, and continue from the file with another training step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer.state = Path(folder, "probe.safetensors")
        trainer.save()
        return Trainer(trainer.run, train_step, trainer.stream, trainer.state, math.inf, "probe")


def _norms_into(norms: list[float]) -> Callable[[Tensor], None]:
    """Return what receives the gradients of each width in place of the other processes, and keeps their norms."""
    return lambda gradients: norms.append(float(gradients.norm()))
