"""A job: what Snakemake runs in one go, and the stage of dvc.yaml that it belongs to."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from us3l.pipeline.identity import Identity


class Seals(Protocol):
    """Reads the seals of the files that an identity tells of: of opened files, or as records tell them."""

    def data(self, folder: Path) -> Any:
        """SHA-256 of the data set in a folder."""
        ...

    def weights(self, path: Path) -> Any:
        """Seal of a checkpoint or a network."""
        ...

    def record(self, path: Path) -> Any:
        """Seal of a record."""
        ...


class Job(ABC):
    """A stage at work: on a data set, on one seed of a run, or on a table."""

    stage: str
    seed: int | None = None

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Data set, or study and run or table."""

    @property
    @abstractmethod
    def stage_params(self) -> dict[str, Any]:
        """The params that determine what the stage computes from its inputs, as plain values."""

    @property
    @abstractmethod
    def inputs(self) -> list[Path]:
        """Files that it reads."""

    @property
    @abstractmethod
    def outputs(self) -> list[Path]:
        """Files that it writes."""

    @property
    @abstractmethod
    def record(self) -> Path:
        """File that says what the others came from; of several such, the first."""

    @abstractmethod
    def identities(self, seals: Seals) -> dict[Path, Identity]:
        """Return, for each record that it writes, what it says about what determines the result."""

    @property
    def command(self) -> str:
        """What makes it, after the word us3l."""
        return " ".join([self.stage, *self.names, *([] if self.seed is None else [str(self.seed)])])

    @property
    def done(self) -> bool:
        """True if all of its files exist, up to date or not."""
        return all(path.is_file() for path in self.outputs)

    @property
    def rule(self) -> str:
        """Rule of the Snakefile."""
        return self.stage

    @property
    def dvc_stage(self) -> str:
        """Stage of dvc.yaml: `prepare@digits`, `digits-pretrain@us3l`; it has all of a run's seeds.

        `digits-features_linear@us3l` is no stage of a study digits-features.
        """
        return "@".join(["-".join([*self.names[:-1], self.dvc_group]), self.names[-1]])

    @property
    def dvc_group(self) -> str:
        """Name of the stage in dvc.yaml, where stages of one name have equally many dependencies."""
        return self.stage.replace("-", "_")
