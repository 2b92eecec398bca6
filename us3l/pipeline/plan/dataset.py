"""A data set of params.yaml: its files, and the job that prepares it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.data.store import FILES
from us3l.params.dataset import Dataset
from us3l.pipeline.identity import Identity
from us3l.pipeline.plan.job import Job, Seals

DOWNLOADS = Path("data", ".downloads")


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """A data set, and the folder of its prepared arrays."""

    name: str
    dataset: Dataset

    @property
    def folder(self) -> Path:
        return Path("data", self.name)

    @property
    def prepared_size(self) -> int | None:
        """Height and width to which pictures are resized and cropped when prepared; None where they are not."""
        return getattr(self.dataset.source, "image_size", None)

    @property
    def files(self) -> list[Path]:
        """Files that other stages read."""
        return [self.folder / name for name in FILES]


@dataclass(frozen=True, eq=False)
class PrepareJob(Job):
    """The preparation of a data set."""

    data: DatasetPlan
    stage = "prepare"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.data.name,)

    @property
    def stage_params(self) -> dict[str, Any]:
        return self.data.dataset.source.model_dump(mode="json")

    @property
    def inputs(self) -> list[Path]:
        return []

    @property
    def outputs(self) -> list[Path]:
        return [*self.data.files, self.record]

    @property
    def record(self) -> Path:
        return self.data.folder / "prepare.json"

    def identities(self, seals: Seals) -> dict[Path, Identity]:
        return {self.record: self.identify()}
