"""An export of params.yaml: its folders, and the jobs that write them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from us3l.params.export import Export
from us3l.params.sampling import width_label
from us3l.pipeline.code import code
from us3l.pipeline.identity import Identity
from us3l.pipeline.plan.job import Job, Seals
from us3l.pipeline.plan.run import RunPlan, RunStage, Seed
from us3l.utils.source import code_of_network

FILES = ("README.md", "config.json", "model.py", "model.safetensors")


@dataclass(frozen=True, eq=False)
class ExportPlan:
    """One export of a study. verify_command: tells how the accuracy at a width is derived again."""

    study: str
    name: str
    export: Export
    run: RunPlan
    verify_command: Callable[[RunPlan, float], str]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.export.seeds or self.run.seeds)

    @property
    def widths(self) -> tuple[float, ...]:
        return tuple(self.export.widths or self.run.widths)

    @property
    def evaluated(self) -> list[float]:
        """Its widths that the study evaluates."""
        return [width for width in self.widths if width in self.run.widths]

    @property
    def on_the_spot(self) -> list[float]:
        """Its widths that the study does not have, so that their networks are calibrated for the export."""
        return [width for width in self.widths if width not in self.run.widths]

    def folder(self, seed: Seed) -> Path:
        """Return the folder that has one of each width."""
        return Path("results", self.study, "exports", self.name, f"seed{seed}")

    def files(self, seed: Seed) -> list[Path]:
        graphs = [f"model.{each}" for each in self.export.formats]
        names = [*FILES, *graphs, *map(str, self.run.network_files)]
        return [self.folder(seed) / width_label(width) / name for width in self.widths for name in names]


@dataclass(frozen=True, eq=False)
class ExportJob(Job):
    """An export of the networks of one seed; the seed is "{seed}" in a Snakemake pattern."""

    export: ExportPlan
    seed: Any
    stage = "export"

    @property
    def names(self) -> tuple[str, ...]:
        return self.export.study, self.export.name

    @property
    def folder(self) -> Path:
        return self.export.folder(self.seed)

    @property
    def stage_params(self) -> dict[str, Any]:
        """Params that determine the folders: what is exported, and what their config.json tells."""
        export, run = self.export, self.export.run
        views = run.data.dataset.views.model_dump(mode="json", include={"normalize", "test"})
        told = {
            **{"run": run.name, "backbone": run.backbone, "protocol": run.protocol_name, "views": views},
            "prepared_size": run.data.prepared_size,
            "verify": {width_label(width): export.verify_command(run, width) for width in export.evaluated},
        }
        chosen = {"widths": list(export.widths), **export.export.model_dump(mode="json", include={"formats", "head"})}
        calibration = {"calibration": self._calibration.stage_params} if export.on_the_spot else {}
        return {**chosen, **told, **calibration}

    @property
    def code(self) -> dict[str, str]:
        calibration = code("calibrate") if self.export.on_the_spot else {}
        return super().code | calibration | code_of_network(self.export.run.backbone)

    @property
    def _calibration(self) -> RunStage:
        return RunStage(self.export.run.producer("calibrate"), "calibrate", self.seed)

    @cached_property
    def inputs(self) -> list[Path]:
        export, run, seed = self.export, self.export.run, self.seed
        return [
            *run.data.files,
            *([run.checkpoint(seed)] if export.on_the_spot else []),
            *(run.network(seed, width) for width in export.evaluated),
            *(run.evaluation_record(seed, width) for width in export.evaluated),
            *(run.classifier(seed, width) for width in export.evaluated if export.export.head),
        ]

    @cached_property
    def outputs(self) -> list[Path]:
        return [*self.export.files(self.seed), self.record]

    @property
    def record(self) -> Path:
        return Path("results", self.export.study, "export", self.export.name, f"seed{self.seed}.json")

    def identities(self, seals: Seals) -> dict[Path, Identity]:
        """Return the identity; the record of an evaluation has the seal of its classifier."""
        export, run, seed = self.export, self.export.run, self.seed
        checkpoint = {"checkpoint": seals.weights(run.checkpoint(seed))} if export.on_the_spot else {}
        networks = {width_label(width): seals.weights(run.network(seed, width)) for width in export.evaluated}
        evaluations = {
            width_label(width): seals.record(run.evaluation_record(seed, width)) for width in export.evaluated
        }
        origin = {"data": seals.data(run.data.folder), "seed": seed, "networks": networks, "evaluations": evaluations}
        return {self.record: self.identify(**origin, **checkpoint)}

    @property
    def rule(self) -> str:
        """Rule of the Snakefile: each export has other files."""
        return "_".join([self.stage, *self.names])
