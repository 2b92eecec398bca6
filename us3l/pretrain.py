"""Pretraining: from a prepared data set to the weights of the widest network, interrupted or not."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l import checkpoint
from us3l.data.store import Store, open_store
from us3l.data.stream import Stream
from us3l.distributed import World
from us3l.errors import Interrupted, UserError
from us3l.interop import Mapped, import_backbone
from us3l.learner import Learner
from us3l.models import backbone
from us3l.params.training import Official, Pretrained, Untrained
from us3l.plan import RunPlan
from us3l.progress import Progress
from us3l.provenance import fingerprint, identify, record, require_params
from us3l.records import read_record, write_record
from us3l.rundir import run_directory
from us3l.schedule import learning_rate
from us3l.widths import sample

COLLAPSED = 0.1  # a spread below this: the embeddings of different images are all but equal


def pretrain(plan: RunPlan, seed: int, world: World, runs: Path, save_every: float) -> None:
    """Train one run with one seed and write its checkpoint and its record (JSON).

    Progress is kept in `runs`/<fingerprint>/, saved every `save_every` seconds, until the results are written.
    Raises UserError for what the user can mend, Interrupted after SIGTERM or SIGINT.
    """
    store = open_store(plan.data.folder)
    origin = {"data": store.sha256, "seed": seed}
    if plan.source:
        origin["teacher"] = _teacher(plan.source, seed)[1]
    identity = identify("pretrain", plan.recipe("pretrain"), **origin)

    def write(weights: dict[str, Tensor], history: list[dict[str, Any]], seconds: float, **more: Any) -> None:
        facts = record(identity, world.device, seconds, world.size)
        seal = checkpoint.save(plan.checkpoint(seed), weights, identity)
        write_record(plan.training(seed), {**facts, "checkpoint": seal, "epochs": history, **more})

    if isinstance(plan.run, Untrained):
        write(_initial_weights(plan.run, store, seed), [], 0.0)
        return
    if isinstance(plan.run, Official):
        mapped = _imported(plan.run, store)
        write(_of_backbone(mapped.weights), [], 0.0, official=mapped.facts)
        return
    folder, record_there = runs / fingerprint(identity), _stamp(plan.training(seed))
    with run_directory(folder) if world.leads else nullcontext():
        if world.any(world.leads and _is_done_meanwhile(plan.training(seed), record_there, folder.name)):
            return
        training = Training(plan.run, store, plan, seed, world, folder / "state.safetensors", save_every)
        training.run_to_the_end()
        if world.leads:
            write(training.learner.flat.parameters, training.history, training.seconds)


def _teacher(plan: RunPlan, seed: int) -> tuple[dict[str, Tensor], str]:
    """The weights of a frozen teacher, all that its training left, and their seal."""
    path = plan.checkpoint(seed)
    tensors, about = checkpoint.load(path)
    require_params(path, about, plan.recipe("pretrain"), "pretrain")
    return tensors, about["seal"]


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _is_done_meanwhile(record: Path, before: int | None, fingerprint: str) -> bool:
    """Whether another training of the same recipe wrote its results while this one waited for the run directory."""
    return _stamp(record) not in (None, before) and read_record(record)["fingerprint"] == fingerprint


def _initial_weights(run: Untrained, store: Store, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    network = backbone(run.backbone, 1.0, store.train.images.shape[-1])
    return _of_backbone(dict(network.named_parameters()))


def _imported(run: Official, store: Store) -> Mapped:
    return import_backbone(Path(run.checkpoint), run.sha256, run.backbone, store.train.images.shape[-1])


def _of_backbone(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"backbone.{name}": value for name, value in parameters.items()}


class Training:
    """A training under way: what it has done so far is `epoch`, `step` and the learner's state."""

    def __init__(
        self, run: Pretrained, store: Store, plan: RunPlan, seed: int, world: World, state: Path, save_every: float
    ) -> None:
        self.run, self.seed, self.world, self.state, self.save_every = run, seed, world, state, save_every
        views = plan.data.dataset.views
        self.stream = Stream(store.train, run.batch, views.pretrain, views.normalize, seed, world)
        self.learner = Learner(run, store.train.images.shape[-1], seed, world.device, world.add_up)
        self.epoch = self.step = 0
        self.totals: Tensor = torch.zeros(0)
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.label = f"{plan.study} {plan.name} seed {seed}"
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
                order = self.stream.order(self.epoch)
                rate = learning_rate(self.run.optimizer, self.epoch, self.run.epochs)
                while self.step < self.stream.steps:
                    self._train_step(order, rate)
                    progress.advance(1)
                    if self.world.any(bool(caught)):
                        self.save()
                        raise Interrupted(caught[0] if caught else signal.SIGTERM)
                    if time.monotonic() - saved >= self.save_every:
                        self.save()
                        saved = time.monotonic()
                self._finish_epoch(rate, progress.line)
        self._require_finite()

    def _train_step(self, order: Tensor, rate: float) -> None:
        widths = sample(self.run.sampling, self.epoch, self.run.epochs, self.seed, self.step)
        shards = self.stream.shards(order, self.epoch, self.step)
        results = self.learner.step(shards, widths, self.epoch, rate)
        self.world.add_up(results)
        self.totals = self.totals + results if self.step else results
        self.step += 1

    def _finish_epoch(self, rate: float, say: Callable[[str], None]) -> None:
        self._require_finite()
        self._count_seconds()
        losses, spreads = (self.totals / self.stream.steps).T.tolist()
        entry = {"epoch": self.epoch, "lr": rate, "loss": losses, "spread": spreads, "seconds": round(self.seconds, 2)}
        self.history.append(entry)
        collapse = "; the embeddings have collapsed" if min(spreads) < COLLAPSED else ""
        say(
            f"epoch {self.epoch + 1}/{self.run.epochs}  lr {rate:.4g}  loss {_numbers(losses)}  "
            f"spread {_numbers(spreads)}  {self.seconds:.1f} s{collapse}"
        )
        self.epoch, self.step = self.epoch + 1, 0

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
