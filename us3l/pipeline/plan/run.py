"""A run of params.yaml: its files, and the share of the params that each of its stages depends on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.params.backbone import is_custom
from us3l.params.dataset import Augmentation
from us3l.params.protocols.protocol import Protocol
from us3l.params.runs import PretrainRun, PruneRun, ReuseRun, Run
from us3l.params.sampling import width_label
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.utils.source import code_of_network, files_of_network

Seed = int | str  # a number, or "{seed}" in a Snakemake pattern


@dataclass(frozen=True, eq=False)
class RunPlan:
    """One run of a study: its params, and its files for each seed and width.

    `source` is the run whose weights it takes: to evaluate them, to prune them, or as its teacher. What it does not
    make itself is that run's: see `maker`.
    """

    study: str
    name: str
    run: Run
    data: DatasetPlan
    protocol_name: str
    protocol: Protocol
    seeds: tuple[int, ...]
    widths: tuple[float, ...]
    source: "RunPlan | None" = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of its own, one after the other; the last is its evaluation."""
        match self.run:
            case ReuseRun():
                return (self.protocol.kind,)
            case PruneRun():
                return ("calibrate", self.protocol.kind)
        return ("pretrain", "calibrate", self.protocol.kind)

    def maker(self, stage: str) -> "RunPlan":
        """The run whose stage, pretrain or calibrate, makes the weights that this one goes on from: this or another."""
        return self if stage in self.stages else self.source.maker(stage)

    @property
    def origins(self) -> list[tuple["RunPlan", str]]:
        """All that its networks came from, runs and their stages: trainings, those of teachers too, and calibration."""
        return [*self._trainings(), (self.maker("calibrate"), "calibrate")]

    def _trainings(self) -> list[tuple["RunPlan", str]]:
        mine = [(self, "pretrain")] if "pretrain" in self.stages else []
        return mine + (self.source._trainings() if self.source else [])

    @property
    def backbone(self) -> str:
        return self.maker("pretrain").run.backbone

    @property
    def network_files(self) -> list[Path]:
        """The source of a user's own network."""
        return files_of_network(self.backbone) if is_custom(self.backbone) else []

    @property
    def _network_code(self) -> dict[str, Any]:
        """What that source says, which counts among the params of all stages that run the network."""
        return {"code": code_of_network(self.backbone)} if is_custom(self.backbone) else {}

    @property
    def trained_views(self) -> list[Augmentation]:
        """How images are augmented for a training: two views, or for a supervised one the classifier's."""
        views = self.data.dataset.views
        return [views.linear] if self._learns_labels else views.pretrain

    @property
    def _learns_labels(self) -> bool:
        return isinstance(self.run, PretrainRun) and self.run.method.name == "supervised"

    @property
    def shards(self) -> int:
        return self.run.batch.shards if isinstance(self.run, PretrainRun) else 1

    def checkpoint(self, seed: Seed) -> Path:
        return self.maker("pretrain")._file("checkpoints", f"seed{seed}.safetensors")

    def training(self, seed: Seed) -> Path:
        """Record of a pretraining: its inputs, losses and feature_std of each epoch, the checkpoint's seal."""
        return self.maker("pretrain")._file("pretrain", f"seed{seed}.json")

    def network(self, seed: Seed, width: float) -> Path:
        return self.maker("calibrate")._file("networks", f"seed{seed}-{width_label(width)}.safetensors")

    def networks(self, seed: Seed) -> list[Path]:
        return [self.network(seed, width) for width in self.widths]

    def calibration(self, seed: Seed) -> Path:
        """The record of a calibration: what it came from, and the seals of the networks."""
        return self.maker("calibrate")._file("calibrate", f"seed{seed}.json")

    def evaluation(self, seed: Seed, width: float) -> Path:
        return self._file(self.protocol.kind, f"seed{seed}-{width_label(width)}.json")

    def evaluations(self, seed: Seed) -> list[Path]:
        return [self.evaluation(seed, width) for width in self.widths]

    def record(self, stage: str, seed: Seed) -> Path:
        """What says what a stage's files came from; of the evaluations, which say so each, the first."""
        return {"pretrain": self.training(seed), "calibrate": self.calibration(seed)}.get(
            stage, self.evaluation(seed, self.widths[0])
        )

    def sources(self, seed: Seed, width: float) -> dict[Path, tuple["RunPlan", str]]:
        """An evaluation and the records of all that it came from, each with the run and the stage that wrote it."""
        above = {run.record(stage, seed): (run, stage) for run, stage in self.origins}
        return {self.evaluation(seed, width): (self, self.protocol.kind)} | above

    def inputs(self, stage: str, seed: Seed) -> list[Path]:
        """What a stage reads for one seed."""
        match stage:
            case "pretrain":
                read = [self.source.checkpoint(seed)] if self.source else []
            case "calibrate":
                read = [self.checkpoint(seed)]
            case _:
                read = self.networks(seed)
        return [*self.data.files, *read]

    def outputs(self, stage: str, seed: Seed) -> list[Path]:
        """What a stage makes for one seed."""
        match stage:
            case "pretrain":
                return [self.checkpoint(seed), self.training(seed)]
            case "calibrate":
                return [*self.networks(seed), self.calibration(seed)]
        return self.evaluations(seed)

    @property
    def group(self) -> str:
        """A name for the runs of a study that have the same widths."""
        return "_".join([self.study, *(width_label(width) for width in sorted(self.widths))])

    def recipe(self, stage: str) -> dict[str, Any]:
        """The params that determine what a stage computes from its inputs, as plain values.

        What another run made is told by its seal among the inputs, whatever that run is called.
        Raises UserError where the source of a user's own network is absent.
        """
        return self._share_of_params(stage) | self._network_code

    def _share_of_params(self, stage: str) -> dict[str, Any]:
        protocol = self.protocol.model_dump(mode="json")
        calibration = protocol.pop("calibration")
        match stage:
            case "pretrain":
                run = self.run.model_dump(mode="json", exclude={"resources", "dataset", "checkpoint"})
                if self.source:
                    run["method"]["teacher"] = self.source.backbone
                seen = self._views("normalize", "linear" if self._learns_labels else "pretrain")
                return {"run": run, **({"views": seen} if isinstance(self.run, PretrainRun) else {})}
            case "calibrate":
                pruning = {"criterion": self.run.criterion} if isinstance(self.run, PruneRun) else {}
                share = {"calibration": calibration, "widths": list(self.widths), **pruning}
                return {**share, "views": self._views("normalize", "linear")}
        augmented = ["linear"] if stage in ("linear", "finetune") else []
        views = self._views("normalize", *augmented, "test")
        return {"protocol": protocol, "widths": list(self.widths), "views": views}

    def _views(self, *keys: str) -> dict[str, Any]:
        views = self.data.dataset.views.model_dump(mode="json")
        return {key: views[key] for key in keys}

    def _file(self, folder: str, name: str) -> Path:
        return Path("results", self.study, folder, self.name, name)
