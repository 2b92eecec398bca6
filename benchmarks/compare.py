"""Several ways to one end, timed in alternation.

Process time tells the work apart from what else the machine does, so it is the clock on a CPU where all sides compute
in this process; the wall clock is that of GPUs, and where other processes load images.
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
    """One way. A turn makes so many of its case's units, and may return a dict: seconds of its parts."""

    turn: Callable[[], object]
    units: float = 1.0


@dataclass(frozen=True)
class Case:
    """What is compared. Each unit, such as a step, has so many images, floating-point operations and bytes to move.

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
    """Seconds and memory of each side, and how many times as fast ours is as the others."""
    there = {name: side for name, side in case.sides.items() if side}
    memory = {name: peak_memory(side.turn, setting.device) for name, side in there.items()}  # warms up, too
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in there}
    for repeat in range(setting.repeats):
        for name in list(there)[:: -1 if repeat % 2 else 1]:
            turns[name].append(_timed(there[name], setting.device))
    times = {name: _times(of_one, clock(setting)) for name, of_one in turns.items()}
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
            for name, side in there.items()
        },
        "absent": [name for name, side in case.sides.items() if side is None],
        "times_as_fast": {name: _ratios(times[name], times[OURS]) for name in there if name != OURS},
    }


def _times(turns: list[dict[str, float]], clock: str) -> dict[str, list[float]]:
    """The seconds of each turn: of the whole by this clock, and of its parts."""
    parts = [name for name in turns[0] if name not in CLOCKS]
    return {WHOLE: [turn[clock] for turn in turns], **{part: [turn[part] for turn in turns] for part in parts}}


def _ratios(other: dict[str, list[float]], ours: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How many times the seconds of ours the other's are, in each pair of turns: of the whole, and of its parts."""
    shared = [part for part in ours if part in other]
    return {part: spread([a / b for a, b in zip(other[part], ours[part], strict=True)]) for part in shared}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _rates(case: Case, seconds: float, ceilings: dict[str, float]) -> dict[str, float]:
    """What a second makes, and what share of what the device can do at most."""
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


def best(turn: Callable[[], object], setting: Setting) -> float:
    """The fewest seconds that a turn takes, once warm."""
    turn()
    return min(_timed(Side(turn), setting.device)[clock(setting)] for _ in range(setting.repeats))


def _timed(side: Side, device: torch.device) -> dict[str, float]:
    """Seconds of a unit by both clocks."""
    _wait(device)
    start = {name: tell() for name, tell in CLOCKS.items()}
    made = side.turn()
    _wait(device)
    passed = {name: tell() - start[name] for name, tell in CLOCKS.items()}
    parts = made if isinstance(made, dict) else {}
    return {name: seconds / side.units for name, seconds in (passed | parts).items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_memory(turn: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a turn adds at its peak: to the GPU's memory, or to this process's; None where no kernel tells it."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        turn()
        return torch.cuda.max_memory_allocated() - before
    counted = _restart_peak()
    before = _status("VmRSS") if counted else 0
    turn()
    return _status("VmHWM") - before if counted else None


def _restart_peak() -> bool:
    """Give free memory back, and let the kernel count the peak anew (Linux only); whether it does."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return False
    return True


def _status(key: str) -> int:
    """Bytes that the kernel tells of this process."""
    [kilobytes] = re.findall(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(kilobytes)
