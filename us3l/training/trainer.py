"""The training loop: steps, epochs, saving and resuming."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from us3l.data.stream import Shard, Stream
from us3l.params.runs import PretrainRun
from us3l.training.lr_schedule import learning_rate
from us3l.training.saved_state import Contradiction, require_agreement
from us3l.training.step import TrainStep
from us3l.training.width_sampling import sample
from us3l.utils import checkpoint
from us3l.utils.errors import ENDING, Interrupted, UserError

COLLAPSED = 0.1  # a feature_std below this: the embeddings of different images are all but equal


class Watcher(Protocol):
    """Sees the course of a training, and changes nothing in it."""

    def step(self) -> None:
        """Look after a step."""
        ...

    def epoch(self) -> None:
        """Look after an epoch, which is the last of the history by then."""
        ...


class Trainer:
    """Trains a run to its end; `epoch`, `step` and the state of the training step are its progress.

    state: file to resume from if it exists, and to save to every `save_every` seconds; label: name of the training in
    messages. `seconds` and `core_seconds` are the wall-clock time spent so far, and that of this process's threads;
    `watchers` look on.
    """

    def __init__(
        self, run: PretrainRun, train_step: TrainStep, stream: Stream, state: Path, save_every: float, label: str
    ) -> None:
        self.run, self.train_step, self.stream, self.world = run, train_step, stream, stream.world
        self.state, self.save_every, self.label = state, save_every, label
        self.epoch = self.step = 0
        self.totals: Tensor = torch.zeros(())
        self.history: list[dict[str, Any]] = []
        self.seconds = self.core_seconds = 0.0
        self.watchers: list[Watcher] = []
        self._start_clocks()
        if state.is_file():
            self._resume()

    def run_to_the_end(self) -> None:
        """Train the remaining epochs.

        Raises Interrupted after SIGTERM, SIGINT or SIGHUP, with the state saved, and UserError where the loss is not
        finite.
        """
        with _signals() as caught:
            self._start_clocks()
            saved = time.monotonic()
            while self.epoch < self.run.epochs:
                for shards in self.stream.shards(self.epoch, self.step):
                    self.advance(shards)
                    for watcher in self.watchers:
                        watcher.step()
                    if self.world.any(bool(caught)):
                        self.save()
                        raise Interrupted(caught[0] if caught else signal.SIGTERM)
                    if time.monotonic() - saved >= self.save_every:
                        self.save()
                        saved = time.monotonic()
                self._finish_epoch()
                for watcher in self.watchers:
                    watcher.epoch()
        self._require_finite()

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        by_step = self.run.optimizer.rate == "step"
        return learning_rate(self.run.optimizer, self._progress if by_step else self.epoch, self.run.epochs)

    @property
    def _progress(self) -> float:
        """Number of epochs done, with the done part of this one."""
        return self.epoch + self.step / self.stream.steps

    def advance(self, shards: list[Shard]) -> None:
        """Take the next step of the epoch, on this process's shards of its batch."""
        widths = sample(self.run.sampling, self.epoch, self.run.epochs, self.stream.seed, self.step)
        results = self.train_step(shards, widths, self._progress, self.rate)
        self.world.all_reduce_(results)
        self.totals = self.totals + results if self.step else results
        self.step += 1

    def _finish_epoch(self) -> None:
        self._require_finite()
        self.step = 0
        rate = self.rate  # of the epoch's first step
        self._count_seconds()
        losses, feature_stds = (self.totals / self.stream.steps).T.tolist()
        entry = {"epoch": self.epoch, "lr": rate, "loss": losses, "feature_std": feature_stds}
        self.history.append({**entry, "seconds": round(self.seconds, 2)})
        self.epoch += 1

    def save(self) -> None:
        """Write the state, in the main process only: it is the same in all. Raises UserError if it is not finite."""
        if self.world.is_main:
            self._require_finite()
            self._count_seconds()
            about = {"epoch": self.epoch, "step": self.step, "seed": self.stream.seed, "history": self.history}
            about |= {"seconds": self.seconds, "core_seconds": self.core_seconds}
            steps = torch.tensor([self.epoch * self.stream.steps + self.step])
            checkpoint.save(self.state, {**self.train_step.state(), "totals": self.totals, "steps": steps}, about)

    def _resume(self) -> None:
        tensors, about = checkpoint.load(self.state)
        try:
            require_agreement(self.run, self.stream, about, tensors, self.train_step.state())
        except Contradiction as what:
            remedy = "delete it, and the training starts from its beginning"
            raise UserError(f"{self.state}: no state of this training: {what}; {remedy}") from None
        self.totals = tensors["totals"].to(self.world.device)
        self.train_step.load_state(tensors)
        self.epoch, self.step = about["epoch"], about["step"]
        self.history = about["history"]
        self.seconds, self.core_seconds = about["seconds"], about["core_seconds"]

    def _start_clocks(self) -> None:
        self._clock, self._core_clock = time.monotonic(), time.process_time()

    def _count_seconds(self) -> None:
        self.seconds += time.monotonic() - self._clock
        self.core_seconds += time.process_time() - self._core_clock
        self._start_clocks()

    def _require_finite(self) -> None:
        if not (self.totals.isfinite().all() and self.train_step.student.weights.values.isfinite().all()):
            kept = f"the last good state is kept in {self.state}; " if self.state.is_file() else ""
            raise UserError(
                f"{self.label}: the loss is no longer finite in epoch {self.epoch + 1}; {kept}"
                "take a lower optimizer.lr, or precision float32"
            )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Append signals that ask for the end to the yielded list, which the loop checks after each step.

    One that is ignored stays so, such as SIGHUP below nohup.
    """
    caught: list[int] = []
    numbers = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, lambda received, frame: caught.append(received)) for number in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
