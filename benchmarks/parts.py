"""The parts of the benchmark, and their records."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from benchmarks import peers
from benchmarks.ceilings import ceilings
from benchmarks.compare import measure
from benchmarks.setting import Setting
from us3l.params.schema import suggestion
from us3l.pipeline.provenance import record
from us3l.utils.errors import UserError
from us3l.utils.records import write_record

PARTS = {
    "augment": "benchmarks.augment",
    "regularizer": "benchmarks.regularizer",
    "optimizer": "benchmarks.optimizer",
    "step": "benchmarks.step",
    "evaluate": "benchmarks.evaluate",
    "prepare": "benchmarks.prepare",
    "end-to-end": "benchmarks.end_to_end",
    "fast-paths": "benchmarks.fast_paths",
    "cuda-graph": "benchmarks.cuda_graph",
}


def require_parts(names: Sequence[str]) -> list[str]:
    """Return the named parts, or all of them. Raises UserError for an unknown one."""
    for name in names:
        if name not in PARTS:
            raise UserError(f"bench has no part {name!r}; {suggestion(name, list(PARTS))}")
    return list(names) or list(PARTS)


def bench(names: Sequence[str], setting: Setting, out: Path) -> None:
    """Measure the parts, and write a record of each."""
    torch.manual_seed(setting.seed)
    peak_rates = ceilings(setting)
    for name in names:
        start, load = time.monotonic(), _load()
        measured = [measure(case, setting, peak_rates) for case in import_module(PARTS[name]).cases(setting)]
        seconds = time.monotonic() - start
        facts = record(_identity(name, setting), setting.device, seconds)
        facts["versions"] |= peers.versions()
        path = record_path(out, name, setting.device.type)
        write_record(path, {**facts, "load": [load, _load()], "ceilings": peak_rates, "cases": measured})
        print(f"{path}: {seconds:.0f} s")


def record_path(out: Path, part: str, device: str) -> Path:
    return out / f"{part}-{device}.json"


def _identity(part: str, setting: Setting) -> dict[str, object]:
    return {
        "bench": part,
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "run": f"{setting.plan.study}/{setting.plan.name}",
        "precision": setting.run.precision,
        "repeats": setting.repeats,
        "batch": setting.batch,
        "shards": setting.run.batch.shards,
        "images": setting.images,
        "workers": setting.workers,
    }


def _load() -> float:
    """Return the mean number of running processes over the last minute."""
    return os.getloadavg()[0]
