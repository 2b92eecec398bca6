"""A job: what one command computes, with its rule of the Snakefile and its stage of dvc.yaml."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from us3l.pipeline.code import code
from us3l.pipeline.identity import Identity


class Seals(Protocol):
    """The seals of the files in an identity, from opened files or from records."""

    def data(self, folder: Path) -> Any:
        """Return the SHA-256 of the data set in a folder."""
        ...

    def weights(self, path: Path) -> Any:
        """Return the seal of a checkpoint or a network."""
        ...

    def record(self, path: Path) -> Any:
        """Return the seal of a record."""
        ...


class Job(ABC):
    """A stage applied to a data set, to one seed of a run, or to a table."""

    stage: str
    seed: int | None = None

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the data set, or of the study and its run or table."""

    @property
    @abstractmethod
    def stage_params(self) -> dict[str, Any]:
        """Params that determine what the stage computes from its inputs, as plain values."""

    @property
    def code(self) -> dict[str, str]:
        """Hashes of the code that computes it, by the module's name."""
        return code(self.stage)

    def identify(self, **origin: Any) -> Identity:
        """Return the identity of a result: stage, params, code, and `origin`, which is seed, width, seals of inputs."""
        return {"stage": self.stage, "params": self.stage_params, "code": self.code, **origin}

    @property
    @abstractmethod
    def inputs(self) -> list[Path]:
        """Files that it reads."""

    @property
    @abstractmethod
    def outputs(self) -> list[Path]:
        """Files that it writes."""

    @property
    def plain_files(self) -> list[Path]:
        """Outputs without a seal in them: `files` of the record has the SHA-256 of each."""
        return []

    @property
    @abstractmethod
    def record(self) -> Path:
        """File that states what the outputs were made from; the first one if there are several."""

    @property
    def records(self) -> list[Path]:
        """Files that state what the outputs were made from."""
        return [self.record]

    @abstractmethod
    def identities(self, seals: Seals) -> dict[Path, Identity]:
        """Return, for each record that it writes, the identity of the result."""

    def stated_seals(self, record: dict[str, Any]) -> dict[Path, Any]:
        """Return the seals of weights that one of its records states, by their path."""
        return {}

    @property
    def command(self) -> str:
        """Command line that runs it, without the word us3l."""
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
        """Stage of dvc.yaml, with all seeds of a run: `prepare@digits`, `digits-pretrain@us3l`.

        The underscore in `digits-features_linear@us3l` tells it from the stage linear of a study digits-features.
        """
        return "@".join(["-".join([*self.names[:-1], self.dvc_group]), self.names[-1]])

    @property
    def dvc_group(self) -> str:
        """Name of the stage in dvc.yaml, where all stages of one name need the same number of dependencies."""
        return self.stage.replace("-", "_")
