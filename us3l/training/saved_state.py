"""What the saved state of a training says of itself must agree: none that was edited or mixed up continues as another.

A seal shows that a file is as it was written, and anyone can write one. So how far a training has come follows from all
that grows with it: counted steps, finished epochs with their rates and losses, and the counters of its parts.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from us3l.data.stream import Stream
from us3l.params.runs import PretrainRun
from us3l.training.lr_schedule import learning_rate
from us3l.training.width_sampling import sample
from us3l.utils.errors import shown


class Contradiction(ValueError):
    """Two things that a state says and that cannot both be true."""


def require_agreement(
    run: PretrainRun,
    stream: Stream,
    about: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
) -> None:
    """Raise Contradiction where a state is not one of this run.

    about: its record; tensors: its tensors, `totals` and `steps` among them; fresh: those of a training that begins.
    """
    epoch, step = about["epoch"], about["step"]
    _require(type(epoch) is int and 0 <= epoch < run.epochs, f"its epoch is {shown(epoch)} of {run.epochs}")
    _require(type(step) is int and 1 <= step <= stream.steps, f"its step is {shown(step)} of {stream.steps}")
    _require(
        about["seed"] == stream.seed, f"its seed is {shown(about['seed'])}, and that of the training is {stream.seed}"
    )
    widths = [_widths(run, stream, each) for each in range(epoch + 1)]
    steps = [stream.steps] * epoch + [step]
    _check_history(run, about, widths)
    totals = torch.zeros(widths[-1], 2, dtype=tensors["totals"].dtype if "totals" in tensors else None)
    _check_tensors(tensors, {**fresh, "steps": torch.zeros(1, dtype=torch.long), "totals": totals})
    _check_counters(run, tensors, sum(steps), sum(map(math.prod, zip(steps, widths, strict=True))))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Contradiction(otherwise)


def _widths(run: PretrainRun, stream: Stream, epoch: int) -> int:
    """Count the widths of each step of an epoch."""
    return len(sample(run.sampling, epoch, run.epochs, stream.seed, 0))


def _check_history(run: PretrainRun, about: Mapping[str, Any], widths: list[int]) -> None:
    epoch, history = about["epoch"], about["history"]
    _require(
        isinstance(history, list) and len(history) == epoch, f"its epoch is {shown(epoch)}, and it tells of others"
    )
    before = 0.0
    for number, (entry, count) in enumerate(zip(history, widths, strict=False)):
        what = f"epoch {number} in it is not as the run has it"
        _require(isinstance(entry, dict) and entry.keys() == {"epoch", "lr", "loss", "feature_std", "seconds"}, what)
        _require(entry["epoch"] == number and all(map(_is_number, (entry["lr"], entry["seconds"]))), what)
        _require(math.isclose(entry["lr"], learning_rate(run.optimizer, number, run.epochs), rel_tol=1e-6), what)
        for values in (entry["loss"], entry["feature_std"]):
            _require(isinstance(values, list) and len(values) == count and all(map(_is_number, values)), what)
        _require(entry["seconds"] >= before, what)
        before = entry["seconds"]
    times = about["seconds"], about["core_seconds"]
    has_grown = all(map(_is_number, times)) and times[0] >= before - 0.01  # the history's are rounded
    _require(has_grown, f"its times are {shown(times)}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # a whole number may be larger than any float


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted(tensors.keys() | expected.keys()):
        found, needed = (_described(each.get(name)) for each in (tensors, expected))
        _require(found == needed, f"its {name} is {found} instead of {needed}")
        _require(bool(tensors[name].isfinite().all()), f"its {name} is not finite")


def _described(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {[*tensor.shape]}"


def _check_counters(run: PretrainRun, tensors: Mapping[str, Tensor], steps: int, updates: int) -> None:
    counted = int(tensors["steps"])
    _require(counted == steps, f"it has taken {counted} steps, and its epoch and step are those after {steps}")
    if "step" in tensors:  # of AdamW, for each parameter
        most = int(tensors["step"].max())
        _require(most == updates, f"its optimizer has counted {most} steps instead of {updates}")
    if "queue" in tensors:
        place, expected = int(tensors["queue_position"]), steps * run.batch.size % len(tensors["queue"])
        _require(place == expected, f"its queue is at {place} instead of {expected}")
