"""The seals of the files that a stage has opened."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OpenedSeals:
    """The seals of an opened data set and, by path, of opened weights. See `us3l.pipeline.plan.job.Seals`."""

    sha256: str
    opened: dict[Path, str] = field(default_factory=dict)

    def data(self, folder: Path) -> Any:
        return self.sha256

    def weights(self, path: Path) -> Any:
        return self.opened[path]

    def record(self, path: Path) -> Any:
        raise NotImplementedError("a stage that computes reads no records")
