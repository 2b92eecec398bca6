"""The cost of the trainings behind a row of a table, so that it stands beside their accuracy."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from us3l.pipeline.tables.cells import Cell


@dataclass(frozen=True)
class TrainingCost:
    """Wall-clock hours, hours of processor cores, and hours of GPUs: the mean over seeds, the sum over a row's runs."""

    hours: float
    core_hours: float
    gpu_hours: float


def training_cost(row: Iterable[Cell]) -> TrainingCost | None:
    """Return the cost of all trainings that the cells of a row rest on; None without any.

    It is that of one seed: where each width has its own run, that of all of them.
    """
    runs: dict[Path, dict[Path, dict[str, Any]]] = {}
    for cell in row:
        for path, record in cell.records.items():
            if record["stage"] == "pretrain":
                runs.setdefault(path.parent, {})[path] = record
    if not runs:
        return None

    def mean(key: str) -> float:
        return sum(fmean(record[key] for record in of_seeds.values()) for of_seeds in runs.values())

    return TrainingCost(mean("seconds") / 3600, mean("core_seconds") / 3600, mean("gpu_hours"))
