"""A run of params.yaml: its files, and the jobs of its stages."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from us3l.params.dataset import Augmentation
from us3l.params.protocols.protocol import Protocol
from us3l.params.protocols.trained import TrainedProtocol
from us3l.params.runs import PretrainRun, PruneRun, ReuseRun, Run
from us3l.params.sampling import AnySampling, width_label
from us3l.pipeline.identity import Identity
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.plan.job import Job, Seals
from us3l.utils.source import code_of_network, files_of_network

NO_CAUSES = {"resources", "dataset", "checkpoint", "monitor", "metrics"}  # keys of a run that change no weights, or
# whose files are known by their seals
Seed = int | str  # a number, or "{seed}" in a Snakemake pattern


@dataclass(frozen=True, eq=False)
class RunPlan:
    """One run of a study: its params, and its files for each seed and width.

    `weights_from` is the run whose weights it takes: to evaluate them, to prune them, or as its teacher. The files of
    stages that it does not have are that run's: see `producer`.
    """

    study: str
    name: str
    run: Run
    data: DatasetPlan
    protocol_name: str
    protocol: Protocol
    seeds: tuple[int, ...]
    widths: tuple[float, ...]
    sampling: AnySampling
    weights_from: "RunPlan | None" = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Its own stages, in order; the last is the evaluation."""
        match self.run:
            case ReuseRun():
                return (self.protocol.kind,)
            case PruneRun():
                return ("calibrate", self.protocol.kind)
        return ("pretrain", "calibrate", self.protocol.kind)

    def producer(self, stage: str) -> "RunPlan":
        """Return the run whose stage, pretrain or calibrate, makes the weights that this run uses."""
        if stage in self.stages or self.weights_from is None:
            return self
        return self.weights_from.producer(stage)

    @property
    def ancestors(self) -> list[tuple["RunPlan", str]]:
        """Runs and stages that its networks come from: trainings, including those of teachers, and the calibration."""
        return [*self._trainings(), (self.producer("calibrate"), "calibrate")]

    def _trainings(self) -> list[tuple["RunPlan", str]]:
        own = [(self, "pretrain")] if "pretrain" in self.stages else []
        return own + (self.weights_from._trainings() if self.weights_from else [])

    @property
    def backbone(self) -> str:
        run = self.producer("pretrain").run
        assert not isinstance(run, ReuseRun | PruneRun)  # these take weights from another run
        return run.backbone

    @property
    def network_files(self) -> list[Path]:
        """Source files of a custom network."""
        return files_of_network(self.backbone)

    @property
    def trained_views(self) -> list[Augmentation]:
        """Augmentation of each view of a training: two, or for a supervised training that of the linear evaluation."""
        views = self.data.dataset.views
        return [views.linear] if self._is_supervised else views.pretrain

    @property
    def _is_supervised(self) -> bool:
        return isinstance(self.run, PretrainRun) and self.run.method.name == "supervised"

    @property
    def shards(self) -> int:
        return self.run.batch.shards if isinstance(self.run, PretrainRun) else 1

    def checkpoint(self, seed: Seed) -> Path:
        """Return the path of the weights of the widest network."""
        return self.producer("pretrain")._file("checkpoints", f"seed{seed}.safetensors")

    def training_record(self, seed: Seed) -> Path:
        """Return the path of a pretraining's record: its inputs, its course, the checkpoint's seal."""
        return self.producer("pretrain")._file("pretrain", f"seed{seed}.json")

    def network(self, seed: Seed, width: float) -> Path:
        """Return the path of the calibrated network of a width."""
        return self.producer("calibrate")._file("networks", f"seed{seed}-{width_label(width)}.safetensors")

    def networks(self, seed: Seed) -> list[Path]:
        return [self.network(seed, width) for width in self.widths]

    def calibration_record(self, seed: Seed) -> Path:
        """Return the path of a calibration's record: its inputs, and the seals of the networks."""
        return self.producer("calibrate")._file("calibrate", f"seed{seed}.json")

    def classifier(self, seed: Seed, width: float) -> Path:
        """Return the path of the classifier of a width, with the network where that was fine-tuned."""
        return self._file("classifiers", f"seed{seed}-{width_label(width)}.safetensors")

    def classifiers(self, seed: Seed) -> list[Path]:
        """Return the paths of what the evaluations trained; none where nearest neighbours vote."""
        trains = isinstance(self.protocol, TrainedProtocol)
        return [self.classifier(seed, width) for width in self.widths] if trains else []

    def evaluation_record(self, seed: Seed, width: float) -> Path:
        """Return the path of an evaluation's record: its inputs, and the accuracy."""
        return self._file(self.protocol.kind, f"seed{seed}-{width_label(width)}.json")

    def evaluation_records(self, seed: Seed) -> list[Path]:
        return [self.evaluation_record(seed, width) for width in self.widths]

    def lineage(self, seed: int, width: float) -> dict[Path, "RunStage"]:
        """Return the records of an evaluation and of the stages before it, each with the job that wrote it."""
        return {self.evaluation_record(seed, width): RunStage(self, self.protocol.kind, seed)} | self._upstream[seed]

    @cached_property
    def _upstream(self) -> dict[int, dict[Path, "RunStage"]]:
        """The records of the stages before the evaluation of each seed, each with its job."""
        jobs = {seed: [RunStage(run, stage, seed) for run, stage in self.ancestors] for seed in self.seeds}
        return {seed: {job.record: job for job in of_seed} for seed, of_seed in jobs.items()}

    @property
    def group(self) -> str:
        """Name of the runs of a study that have the same widths."""
        return "_".join([self.study, *(width_label(width) for width in sorted(self.widths))])

    def _file(self, folder: str, name: str) -> Path:
        return Path("results", self.study, folder, self.name, name)


@dataclass(frozen=True, eq=False)
class RunStage(Job):
    """A stage of a run for one seed."""

    run: RunPlan
    stage: str
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.run.study, self.run.name

    @cached_property
    def inputs(self) -> list[Path]:
        run = self.run
        match self.stage:
            case "pretrain":
                read = [run.weights_from.checkpoint(self.seed)] if run.weights_from else []
            case "calibrate":
                read = [run.checkpoint(self.seed)]
            case _:
                read = run.networks(self.seed)
        return [*run.data.files, *read]

    @cached_property
    def outputs(self) -> list[Path]:
        run = self.run
        match self.stage:
            case "pretrain":
                return [run.checkpoint(self.seed), self.record]
            case "calibrate":
                return [*run.networks(self.seed), self.record]
        return [*run.classifiers(self.seed), *run.evaluation_records(self.seed)]

    @property
    def record(self) -> Path:
        match self.stage:
            case "pretrain":
                return self.run.training_record(self.seed)
            case "calibrate":
                return self.run.calibration_record(self.seed)
        return self.run.evaluation_record(self.seed, self.run.widths[0])

    @property
    def records(self) -> list[Path]:
        return [self.record] if self.stage in ("pretrain", "calibrate") else self.run.evaluation_records(self.seed)

    @property
    def gpus(self) -> int:
        """GPUs it computes on: the run's for a training, none for weights that are not trained, else at most one."""
        gpus = self.run.run.resources.gpus
        if self.stage == "pretrain":
            return gpus if isinstance(self.run.run, PretrainRun) else 0
        return min(1, gpus)

    @property
    def titles(self) -> dict[str, str]:
        """Names by which the record of an evaluation tells people what it is of."""
        run = self.run
        return {"study": run.study, "run": run.name, "protocol": self.stage, "dataset": run.data.name}

    @property
    def network_code(self) -> dict[str, str]:
        """Hashes of the modules of a custom network. Raises UserError where its source is missing."""
        return code_of_network(self.run.backbone)

    @property
    def code(self) -> dict[str, str]:
        return super().code | self.network_code

    def identities(self, seals: Seals) -> dict[Path, Identity]:
        run, seed = self.run, self.seed
        origin = {"data": seals.data(run.data.folder), "seed": seed}
        if self.stage == "pretrain":
            teacher = {"teacher": seals.weights(run.weights_from.checkpoint(seed))} if run.weights_from else {}
            return {self.record: self.identify(**origin, **teacher)}
        origin["checkpoint"] = seals.weights(run.checkpoint(seed))
        identity = self.identify(**origin)
        if self.stage == "calibrate":
            return {self.record: identity}
        return {
            run.evaluation_record(seed, width): {
                **identity,
                "width": width,
                "network": seals.weights(run.network(seed, width)),
            }
            for width in run.widths
        }

    def stated_seals(self, record: dict[str, Any]) -> dict[Path, Any]:
        run = self.run
        match self.stage:
            case "pretrain":
                return {run.checkpoint(self.seed): record.get("checkpoint")}
            case "calibrate":
                networks = record.get("networks", {})
                return {run.network(self.seed, width): networks.get(width_label(width)) for width in run.widths}
        classifier = run.classifier(self.seed, record["width"])
        return {classifier: record["classifier"]} if "classifier" in record else {}

    @property
    def stage_params(self) -> dict[str, Any]:
        """Params that determine what the stage computes from its inputs, as plain values.

        The name of another run is not among them: its files are known by their seals among the inputs.
        """
        run = self.run
        protocol = run.protocol.model_dump(mode="json")
        calibration = protocol.pop("calibration")
        match self.stage:
            case "pretrain":
                return self._training_params
            case "calibrate":
                pruning = {"criterion": run.run.criterion} if isinstance(run.run, PruneRun) else {}
                share = {"calibration": calibration, "widths": list(run.widths), **pruning}
                return {**share, "views": self._views("normalize", "linear")}
        augmented = ["linear"] if self.stage in ("linear", "finetune") else []
        views = self._views("normalize", *augmented, "test")
        return {"protocol": protocol, "widths": list(run.widths), "views": views}

    @property
    def _training_params(self) -> dict[str, Any]:
        run = self.run
        settings = run.run.model_dump(mode="json", exclude=NO_CAUSES)
        if run.weights_from:
            settings["method"]["teacher"] = run.weights_from.backbone
        if not isinstance(run.run, PretrainRun):
            return {"run": settings}
        return {"run": settings, "views": self._views("normalize", "linear" if run._is_supervised else "pretrain")}

    def _views(self, *keys: str) -> dict[str, Any]:
        views = self.run.data.dataset.views.model_dump(mode="json")
        return {key: views[key] for key in keys}

    @property
    def rule(self) -> str:
        return self.stage if self.stage == "pretrain" else f"{self.stage}_{self.run.group}"

    @property
    def dvc_group(self) -> str:
        """Name of the stage in dvc.yaml; a training with a teacher has one more dependency, hence another name."""
        has_teacher = self.stage == "pretrain" and self.run.weights_from
        return "pretrain_with_teacher" if has_teacher else super().dvc_group
