"""A training under way: steps, epochs, what is saved, and what is continued."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l.data.store import Store
from us3l.data.stream import Shard, Stream
from us3l.params.dataset import Augmentation, Normalize
from us3l.params.runs import Pretrained
from us3l.training.lr_schedule import learning_rate
from us3l.training.micro_batches import Encoder
from us3l.training.progress import Progress
from us3l.training.step import Learner
from us3l.training.width_sampling import sample
from us3l.utils import checkpoint
from us3l.utils.distributed import World
from us3l.utils.errors import Interrupted, UserError

COLLAPSED = 0.1  # a spread below this: the embeddings of different images are all but equal


class Training:
    """What it has done so far is `epoch`, `step` and the learner's state."""

    def __init__(
        self,
        run: Pretrained,
        recipes: list[Augmentation],
        normalize: Normalize,
        label: str,
        store: Store,
        seed: int,
        world: World,
        state: Path,
        save_every: float,
        teacher: Encoder | None,
        sides: Sequence[int] | None,
    ) -> None:
        self.run, self.seed, self.world, self.state, self.save_every = run, seed, world, state, save_every
        shuffled = run.method.name == "moco"
        self.stream = Stream(store.train, run.batch, recipes, normalize, seed, world, shuffled)
        classes = len(store.classes)
        self.learner = Learner(run, store.channels, classes, seed, world.device, world.add_up, teacher, sides)
        self.epoch = self.step = 0
        self.totals: Tensor = torch.zeros(0)
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.label = label
        if state.is_file():
            self._resume()

    def run_to_the_end(self) -> None:
        """Train what is left of the epochs."""
        with (
            Progress(self.label, self.run.epochs * self.stream.steps, self.world.leads) as progress,
            _signals() as caught,
        ):
            progress.advance(self.epoch * self.stream.steps + self.step)
            saved = self.clock = time.monotonic()
            while self.epoch < self.run.epochs:
                for shards in self.stream.shards(self.epoch, self.step):
                    self._train_step(shards)
                    progress.advance(1)
                    if self.world.any(bool(caught)):
                        self.save()
                        raise Interrupted(caught[0] if caught else signal.SIGTERM)
                    if time.monotonic() - saved >= self.save_every:
                        self.save()
                        saved = time.monotonic()
                self._finish_epoch(progress.line)
        self._require_finite()

    @property
    def _rate(self) -> float:
        """The learning rate of the next step."""
        by_step = self.run.optimizer.rate == "step"
        return learning_rate(self.run.optimizer, self._progress if by_step else self.epoch, self.run.epochs)

    @property
    def _progress(self) -> float:
        """How many epochs are done, and the done part of this one."""
        return self.epoch + self.step / self.stream.steps

    def _train_step(self, shards: list[Shard]) -> None:
        widths = sample(self.run.sampling, self.epoch, self.run.epochs, self.seed, self.step)
        results = self.learner.step(shards, widths, self._progress, self._rate)
        self.world.add_up(results)
        self.totals = self.totals + results if self.step else results
        self.step += 1

    def _finish_epoch(self, say: Callable[[str], None]) -> None:
        self._require_finite()
        self.step = 0
        rate = self._rate  # of the epoch's first step
        self._count_seconds()
        losses, spreads = (self.totals / self.stream.steps).T.tolist()
        entry = {"epoch": self.epoch, "lr": rate, "loss": losses, "spread": spreads, "seconds": round(self.seconds, 2)}
        self.history.append(entry)
        collapse = "; the embeddings have collapsed" if min(spreads) < COLLAPSED else ""
        say(
            f"epoch {self.epoch + 1}/{self.run.epochs}  lr {rate:.4g}  loss {_numbers(losses)}  "
            f"spread {_numbers(spreads)}  {self.seconds:.1f} s{collapse}"
        )
        self.epoch += 1

    def save(self) -> None:
        """Write the state in the leading process: it is the same in all. Raises UserError if it is not finite."""
        if self.world.leads:
            self._require_finite()
            self._count_seconds()
            about = {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "history": self.history}
            checkpoint.save(self.state, {**self.learner.state(), "totals": self.totals}, about)

    def _resume(self) -> None:
        tensors, about = checkpoint.load(self.state)
        self.totals = tensors["totals"].to(self.world.device)
        self.learner.load_state(tensors)
        self.epoch, self.step = about["epoch"], about["step"]
        self.seconds, self.history = about["seconds"], about["history"]

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - self.clock
        self.clock = now

    def _require_finite(self) -> None:
        if not (self.totals.isfinite().all() and self.learner.flat.values.isfinite().all()):
            kept = f"the last good state is kept in {self.state}; " if self.state.is_file() else ""
            raise UserError(
                f"{self.label}: the loss is no longer finite in epoch {self.epoch + 1}; {kept}"
                "take a lower optimizer.lr, or precision float32"
            )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Catch SIGTERM and SIGINT in the yielded list; the loop looks at it after each step."""
    caught: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda received, frame: caught.append(received)) for number in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
