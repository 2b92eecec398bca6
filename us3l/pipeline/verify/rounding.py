"""What another order of the same operations explains, as other hardware and versions have it; without PyTorch.

The limits are ten times the largest difference measured, or more: docs/attacks.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

# Of the logits of an image, relative to the distance of the largest and the smallest; of other evaluations than these,
# each of which trains longer, no limit was measured to be small enough.
LOGITS = {"linear": 4e-4, "features-linear": 4e-5, "knn": 4e-5}
STATISTICS = 1e-4  # of the running statistics in a network, relative to the largest of a layer
LOSSES = 0.05  # of an epoch's mean loss and feature_std, relative to the largest of the training


def unexplained(classes: np.ndarray, logits: np.ndarray, limit: float) -> np.ndarray:
    """Return the images whose class is another than logits predict [N, classes], and not nearly as likely."""
    near = _nearly(logits, limit)
    is_class = classes < logits.shape[1]
    own = np.take_along_axis(logits, np.where(is_class, classes, 0)[:, None].astype(int), 1)[:, 0]
    return np.flatnonzero(~(is_class & (own >= logits.max(1) - near)))


def top5_bounds(labels: np.ndarray, logits: np.ndarray, limit: float) -> tuple[float, float]:
    """Return the smallest and the largest top-5 accuracy in percent of logits [N, classes] that are nearly these."""
    near, own = _nearly(logits, limit)[:, None], np.take_along_axis(logits, labels[:, None], 1)
    others = np.arange(logits.shape[1]) != labels[:, None]
    above = [(others & (logits > own + sign * near)).sum(1) for sign in (-1, 1)]
    low, high = (100 * int((each < 5).sum()) / len(labels) for each in above)
    return low, high


def _nearly(logits: np.ndarray, limit: float) -> np.ndarray:
    """Return how far two logits of an image may lie apart and change places: each moves by the limit, [N]."""
    return 2 * limit * (logits.max(1) - logits.min(1))


def network_difference(recorded: Path, again: Path) -> str | None:
    """Describe the first tensor that differs: a parameter at all, or a running statistic by more than rounding."""
    try:
        was, now = load_file(recorded), load_file(again)
    except (OSError, SafetensorError) as error:
        return f"not readable ({error})"
    if [*was] != [*now] or any(was[name].shape != now[name].shape for name in was):
        return "the tensors have other names or shapes"
    for name, tensor in was.items():
        limit = STATISTICS * np.abs(now[name]).max(initial=0) if "running_" in name else 0
        if not (np.abs(tensor.astype(float) - now[name]) <= limit).all():
            return f"{name} differs by more than {limit:g}"
    return None


def same_tensors(recorded: Path, again: Path) -> bool:
    """Tell whether two files hold the same tensors, bit for bit."""
    was, now = load_file(recorded), load_file(again)
    return was.keys() == now.keys() and all(
        was[name].shape == now[name].shape and was[name].tobytes() == now[name].tobytes() for name in was
    )


def epoch_differences(recorded: list[dict[str, Any]], again: list[dict[str, Any]]) -> Iterator[str]:
    """Describe the losses and spreads of a training's epochs that differ by more than chance has them differ."""
    if len(recorded) != len(again):
        yield f"epochs: {len(recorded)} were recorded, {len(again)} came again"
        return
    for key in ("loss", "feature_std"):
        values = [value for epoch in again for value in epoch[key]]
        limit = LOSSES * max(map(abs, values), default=0.0)
        for was, now in zip(recorded, again, strict=True):
            pairs = zip(was[key], now[key], strict=False)
            if len(was[key]) != len(now[key]) or any(abs(one - other) > limit for one, other in pairs):
                yield f"epoch {now['epoch']}: {key} {was[key]} was recorded, {now[key]} came again"
                break
    for was, now in zip(recorded, again, strict=True):
        if was["epoch"] != now["epoch"] or abs(was["lr"] - now["lr"]) > 1e-9 * now["lr"]:
            yield f"epoch {now['epoch']}: lr {was['lr']} of epoch {was['epoch']} was recorded, {now['lr']} came again"
            break
