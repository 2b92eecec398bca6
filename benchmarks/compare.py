"""Timing of several implementations of the same computation, in alternation.

Process time leaves out what else the machine does, so it is the clock on a CPU if all sides compute in this process; on
a GPU, and if other processes load images, the wall clock is.
"""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.setting import Setting

OURS = "ours"
STRAIGHTFORWARD = "straightforward"
WHOLE = "whole"
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


@dataclass(frozen=True)
class Side:
    """One implementation: `turn` does `units` of its case's units, and may return a dict: seconds of its parts."""

    turn: Callable[[], object]
    units: float = 1.0


@dataclass(frozen=True)
class Case:
    """A comparison, with the images, floating-point operations and bytes moved of one unit, such as a step.

    sides: by name; None for a peer that is not installed.
    """

    name: str
    unit: str
    sides: dict[str, Side | None]
    images: float | None = None
    flop: float | None = None
    traffic: float | None = None
    note: str = ""


def measure(case: Case, setting: Setting, ceilings: dict[str, float]) -> dict[str, Any]:
    """Measure seconds and memory of each side, and how many times as fast ours is as the others."""
    sides = {name: side for name, side in case.sides.items() if side}
    memory = {name: peak_memory(side.turn, setting.device) for name, side in sides.items()}  # warms up, too
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for repeat in range(setting.repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            turns[name].append(_timed(sides[name], setting.device))
    times = {name: _times(each, clock(setting)) for name, each in turns.items()}
    return {
        "name": case.name,
        "unit": case.unit,
        "note": case.note,
        "clock": clock(setting),
        "images": case.images,
        "flop": case.flop,
        "traffic": case.traffic,
        "sides": {
            name: {
                "seconds": spread(times[name][WHOLE]),
                "parts": {part: spread(values) for part, values in times[name].items() if part != WHOLE},
                **_rates(case, median(times[name][WHOLE]), ceilings),
                "peak_memory": memory[name],
                "units_a_turn": side.units,
                "turns": turns[name],
            }
            for name, side in sides.items()
        },
        "absent": [name for name, side in case.sides.items() if side is None],
        "times_as_fast": {name: _ratios(times[name], times[OURS]) for name in sides if name != OURS},
    }


def _times(turns: list[dict[str, float]], clock: str) -> dict[str, list[float]]:
    """Return the seconds of each turn: of the whole by this clock, and of its parts."""
    parts = [name for name in turns[0] if name not in CLOCKS]
    return {WHOLE: [turn[clock] for turn in turns], **{part: [turn[part] for turn in turns] for part in parts}}


def _ratios(other: dict[str, list[float]], ours: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Compare paired turns, the whole and its parts: the other side's seconds divided by ours."""
    shared = [part for part in ours if part in other]
    return {part: spread([a / b for a, b in zip(other[part], ours[part], strict=True)]) for part in shared}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _rates(case: Case, seconds: float, ceilings: dict[str, float]) -> dict[str, float]:
    """Compute the rates per second, and their shares of the device's peak rates."""
    rates = {}
    if case.images:
        rates["images_per_second"] = case.images / seconds
    if case.flop:
        rates["flops"] = case.flop / seconds
        rates["share_of_arithmetic"] = rates["flops"] / ceilings["flops"]
    if case.traffic:
        rates["bytes_per_second"] = case.traffic / seconds
        rates["share_of_copy"] = rates["bytes_per_second"] / ceilings["bytes_per_second"]
    return rates


def clock(setting: Setting) -> str:
    return "process" if setting.device.type == "cpu" and not setting.workers else "wall"


def fewest_seconds(turn: Callable[[], object], setting: Setting) -> float:
    """Return the seconds of the fastest turn, after one that is not timed."""
    turn()
    return min(_timed(Side(turn), setting.device)[clock(setting)] for _ in range(setting.repeats))


def _timed(side: Side, device: torch.device) -> dict[str, float]:
    """Measure the seconds of a unit by both clocks, and those of its parts."""
    _synchronize(device)
    start = {name: now() for name, now in CLOCKS.items()}
    returned = side.turn()
    _synchronize(device)
    elapsed = {name: now() - start[name] for name, now in CLOCKS.items()}
    parts = returned if isinstance(returned, dict) else {}
    return {name: seconds / side.units for name, seconds in (elapsed | parts).items()}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(turn: Callable[[], object], device: torch.device) -> int | None:
    """Measure the bytes that a turn adds at its peak to the memory of the GPU or of this process.

    None if the kernel does not report it.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        turn()
        return torch.cuda.max_memory_allocated() - before
    is_reported = _reset_peak()
    before = _memory_status("VmRSS") if is_reported else 0
    turn()
    return _memory_status("VmHWM") - before if is_reported else None


def _reset_peak() -> bool:
    """Return free memory to the system, reset the kernel's peak (Linux only), and tell whether that worked."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except (AttributeError, OSError):
        return False
    return True


def _memory_status(key: str) -> int:
    """Read the bytes that the kernel reports of this process under a key."""
    [kilobytes] = re.findall(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    return 1024 * int(kilobytes)
