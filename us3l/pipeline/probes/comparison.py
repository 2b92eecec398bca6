"""Comparison of two outcomes of a probe: bitwise, or within the rounding of float32."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# The relative differences that another order of the same operations explains: ten times the largest seen, or more.
# In evaluations and calibrations, in float32; in float64 for each of the three steps of a training, which magnify it.
ROUNDING = 1e-5
STEP_LIMITS = {"step_0": 1e-8, "step_1": 1e-6, "step_2": 1e-4}
# How much more or less the first loss may differ from that in float64 than it did: rounding changes by chance, another
# precision by more. In float32 it was at most 3e-7.
ERROR_RATIO, SMALLEST_ERROR = 30.0, 1e-6
FLOAT64 = "float64"
CHECKSUM = "sha256"

Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A value that differs between two outcomes, by its dotted key; `relative` is infinite for what is no number."""

    key: str
    recorded: Any
    now: Any
    relative: float

    def __str__(self) -> str:
        return f"{self.key} was {self.recorded} and is {self.now}"


def differences(recorded: Any, now: Any) -> list[Difference]:
    """List what differs, in the order of the probe."""
    return list(_differences(recorded, now, "", 1.0))


def beyond_rounding(recorded: Outcome, now: Outcome) -> list[Difference]:
    """List the differences that another order of the same operations does not explain.

    A training's are those in float64, and the error of float32 if it is another one.
    """
    found = differences(recorded, now)
    if FLOAT64 not in recorded or FLOAT64 not in now:
        return [each for each in found if each.relative > ROUNDING]
    exact = [each for each in found if each.key.startswith(FLOAT64) and each.relative > _limit(each)]
    return [*exact, *_other_precision(_error(recorded), _error(now))]


def _limit(difference: Difference) -> float:
    return next((STEP_LIMITS[part] for part in difference.key.split(".") if part in STEP_LIMITS), ROUNDING)


def _other_precision(was: float, now: float) -> list[Difference]:
    ratio = max(now, SMALLEST_ERROR) / max(was, SMALLEST_ERROR)
    is_same = 1 / ERROR_RATIO < ratio < ERROR_RATIO
    return [] if is_same else [Difference(f"error against {FLOAT64}", was, now, math.inf)]


def _error(outcome: Outcome) -> float:
    """Return the difference of the widest network's first loss from that in float64; nothing has magnified it yet.

    A loss may be near 0. So the difference is relative to its feature_std, where that is larger.
    """
    first, exact = (each["epoch_0"]["step_0"]["loss_and_feature_std"][0] for each in (outcome, outcome[FLOAT64]))
    largest = max(abs(value - exact_value) for value, exact_value in zip(first, exact, strict=True))
    return float(largest / (max(map(abs, exact)) or 1.0))


def _differences(recorded: Any, now: Any, key: str, scale: float) -> Iterator[Difference]:
    """Compare recursively; `scale` is what differences of projections are relative to: the norm of their tensor."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        norm = max(abs(each.get("norm", 0.0)) for each in (recorded, now))
        for name in dict.fromkeys([*recorded, *now]):
            yield from _differences(recorded.get(name), now.get(name), f"{key}.{name}" if key else name, norm)
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for index, pair in enumerate(zip(recorded, now, strict=True)):
            yield from _differences(*pair, f"{key}.{index}", 0.0)
    elif recorded != now and not (_is_nan(recorded) and _is_nan(now)):
        yield Difference(key, recorded, now, _relative(key, recorded, now, scale))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _relative(key: str, recorded: Any, now: Any, scale: float) -> float:
    """Return the relative difference of two numbers; 0 for checksums, since the tensors' norms differ, too."""
    if key.endswith(f".{CHECKSUM}") and isinstance(recorded, str) and isinstance(now, str):
        return 0.0
    if not (isinstance(recorded, float) and isinstance(now, float)):
        return math.inf
    if not (math.isfinite(recorded) and math.isfinite(now)):
        return math.inf
    return abs(recorded - now) / max(abs(recorded), abs(now), scale)
