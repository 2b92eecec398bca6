"""Comparison of two outcomes of a probe: bitwise, or within the rounding of float32."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# The relative difference of numbers up to which another order of the same operations explains it: ten times the largest
# seen in evaluations and calibrations. The steps of a training magnify rounding, soon beyond it.
ROUNDING = 1e-5
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
