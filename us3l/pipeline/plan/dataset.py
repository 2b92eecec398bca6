"""A data set of params.yaml and its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.data.store import FILES
from us3l.params.dataset import Dataset


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """A data set and where it lies once prepared."""

    name: str
    dataset: Dataset

    @property
    def folder(self) -> Path:
        return Path("data", self.name)

    @property
    def files(self) -> list[Path]:
        """What other stages read."""
        return [self.folder / name for name in FILES]

    @property
    def record(self) -> Path:
        """What the files came from."""
        return self.folder / "prepare.json"

    @property
    def outputs(self) -> list[Path]:
        return [*self.files, self.record]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.dataset.source.model_dump(mode="json")
