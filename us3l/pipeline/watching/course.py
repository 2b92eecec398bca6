"""The course of a training as people see it: readings of its numbers, for a log, a bar, a status file and metrics."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from us3l.params.sampling import AnySampling, FixedWidths
from us3l.pipeline.watching.bar import Bar
from us3l.pipeline.watching.wording import numbers, pace
from us3l.training.trainer import COLLAPSED, Trainer, Watcher
from us3l.training.width_sampling import min_width

MINUTE = 60.0  # seconds between two lines within an epoch


@dataclass(frozen=True)
class Reading:
    """Means over some steps of an epoch. step: of the whole training; losses, spreads: by the name of the width."""

    step: int
    epoch: int
    lr: float
    losses: dict[str, float]
    spreads: dict[str, float]
    images_per_second: float | None
    seconds_left: float | None

    def __str__(self) -> str:
        collapse = "; the embeddings have collapsed" if min(self.spreads.values()) < COLLAPSED else ""
        return (
            f"lr {self.lr:.4g}  loss {numbers(self.losses)}  spread {numbers(self.spreads)}"
            f"{pace(self.images_per_second, self.seconds_left)}{collapse}"
        )


class Course(Watcher):
    """Reads the numbers of a training every so many steps, every minute and at the end of each epoch.

    A reading waits for the device, so no other step does. metrics: what takes the readings of every so many steps.
    """

    def __init__(self, trainer: Trainer, bar: Bar, metrics: Sequence[Callable[[Reading], None]], every: int) -> None:
        self._trainer, self._bar, self._metrics, self._every = trainer, bar, metrics, every
        self._told = time.monotonic()
        self._marks = deque([(self._done, self._told)], maxlen=2)  # steps and times of the last readings
        self._last: tuple[int, int, Tensor | float] = trainer.epoch, trainer.step, trainer.totals
        self._numbers: dict[str, dict[str, float]] = {}
        bar.advance_to(self._done)

    def step(self) -> None:
        trainer = self._trainer
        self._bar.advance_to(self._done)
        is_due, is_long_ago = self._done % self._every == 0, time.monotonic() - self._told >= MINUTE
        if not (is_due or is_long_ago):
            return
        reading = self._read()
        for write in self._metrics if is_due else ():
            write(reading)
        if is_long_ago:
            self._tell(f"epoch {trainer.epoch + 1}/{trainer.run.epochs} step {trainer.step}/{self._steps}", reading)

    def epoch(self) -> None:
        entry, epochs = self._trainer.history[-1], self._trainer.run.epochs
        reading = self._reading(entry["epoch"], entry["lr"], entry["loss"], entry["feature_std"])
        self._tell(f"epoch {entry['epoch'] + 1}/{epochs}", reading)

    def progress(self) -> dict[str, Any]:
        """Return what a status file says of the training, without waiting for the device."""
        trainer = self._trainer
        place = {"epoch": trainer.epoch, "epochs": trainer.run.epochs, "step": trainer.step, "steps": self._steps}
        return {**place, **self._speed(), **self._numbers}

    @property
    def _steps(self) -> int:
        """Steps of an epoch."""
        return self._trainer.stream.steps

    @property
    def _done(self) -> int:
        """Steps of the whole training that are done."""
        return self._trainer.epoch * self._steps + self._trainer.step

    def _speed(self) -> dict[str, float | None]:
        """Return images a second since the last reading but one, and the seconds that the other steps take so.

        None before a step is done.
        """
        first, start = self._marks[0]
        done, seconds = self._done - first, time.monotonic() - start
        if not (done and seconds):
            return {"images_per_second": None, "seconds_left": None}
        left = self._trainer.run.epochs * self._steps - self._done
        return {
            "images_per_second": done * self._trainer.run.batch.size / seconds,
            "seconds_left": left * seconds / done,
        }

    def _read(self) -> Reading:
        """Read the means over the steps since the last reading, or since the beginning of the epoch."""
        trainer = self._trainer
        epoch, step, totals = self._last
        if epoch != trainer.epoch:
            step, totals = 0, 0.0
        losses, spreads = ((trainer.totals - totals) / (trainer.step - step)).T.tolist()
        self._last = trainer.epoch, trainer.step, trainer.totals
        return self._reading(trainer.epoch, trainer.rate, losses, spreads)

    def _reading(self, epoch: int, lr: float, losses: list[float], spreads: list[float]) -> Reading:
        names = width_names(self._trainer.run.sampling, epoch, self._trainer.run.epochs)
        speed = self._speed()
        reading = Reading(
            step=self._done,
            epoch=epoch,
            lr=lr,
            losses=dict(zip(names, losses, strict=True)),
            spreads=dict(zip(names, spreads, strict=True)),
            images_per_second=speed["images_per_second"],
            seconds_left=speed["seconds_left"],
        )
        self._numbers = {"losses": _finite(reading.losses), "spreads": _finite(reading.spreads)}
        if self._marks[-1][0] != self._done:
            self._marks.append((self._done, time.monotonic()))
        return reading

    def _tell(self, place: str, reading: Reading) -> None:
        self._told = time.monotonic()
        self._bar.line(f"{place}  {reading}")
        self._bar.show(f"loss {numbers(reading.losses)}")


def _finite(by_width: dict[str, float]) -> dict[str, float]:
    """Leave out what JSON cannot hold."""
    return {name: value for name, value in by_width.items() if math.isfinite(value)}


def width_names(sampling: AnySampling, epoch: int, epochs: int) -> list[str]:
    """Name the widths of the steps of an epoch, widest first: 1x, between, 0.25x."""
    if isinstance(sampling, FixedWidths):
        return [f"{width:g}x" for width in sorted(sampling.widths, reverse=True)]
    low, high = min_width(sampling, epoch, epochs), sampling.widest
    if low == high:
        return [f"{high:g}x"]
    is_sandwich = sampling.rule == "sandwich"
    drawn = sampling.widths_per_step - (2 if is_sandwich else 0)
    between = ["between"] if drawn == 1 else [f"between-{number}" for number in range(1, drawn + 1)]
    return [f"{high:g}x", *between, f"{low:g}x"] if is_sandwich else between
