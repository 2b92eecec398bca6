"""What params.yaml asks for: runs, the files they make, and the share of the params that each stage depends on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.closure import code_of, code_of_network, files_of_network
from us3l.data.store import FILES
from us3l.errors import UserError
from us3l.params.data import Augmentation, Dataset
from us3l.params.evaluation import Protocol
from us3l.params.references import Address, run_at, source_of, widths_of
from us3l.params.schema import suggestion
from us3l.params.studies import Params, Study, Table
from us3l.params.training import Pretrained, Pruned, Reused, Run, is_own

EVALUATIONS = {
    "linear": "us3l.linear",
    "features-linear": "us3l.features_linear",
    "knn": "us3l.knn",
    "finetune": "us3l.finetune",
}
STAGES_OF_RUNS = {"pretrain": "us3l.pretrain", "calibrate": "us3l.calibrate", **EVALUATIONS}
STAGES = {"prepare": "us3l.data.sources", **STAGES_OF_RUNS, "table": "us3l.tables"}
TABLE_FORMATS = ("md", "csv", "tex", "json")

Seed = int | str  # a number, or "{seed}" in a Snakemake pattern


def code(stage: str) -> dict[str, str]:
    """The modules of this package that a stage runs, each with the hash of what it says."""
    return code_of(STAGES[stage])


def width_label(width: float) -> str:
    """1.0 is w100, 0.25 is w025, 0.275 is w0275: no dot, no two widths alike."""
    whole, decimals = str(float(width)).split(".")
    return f"w{whole}{decimals:0<2}"


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
            case Reused():
                return (self.protocol.kind,)
            case Pruned():
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
        return files_of_network(self.backbone) if is_own(self.backbone) else []

    @property
    def _network_code(self) -> dict[str, Any]:
        """What that source says, which counts among the params of all stages that run the network."""
        return {"code": code_of_network(self.backbone)} if is_own(self.backbone) else {}

    @property
    def trained_views(self) -> list[Augmentation]:
        """How images are augmented for a training: two views, or for a supervised one the classifier's."""
        views = self.data.dataset.views
        return [views.linear] if self._learns_labels else views.pretrain

    @property
    def _learns_labels(self) -> bool:
        return isinstance(self.run, Pretrained) and self.run.method.name == "supervised"

    @property
    def shards(self) -> int:
        return self.run.batch.shards if isinstance(self.run, Pretrained) else 1

    def checkpoint(self, seed: Seed) -> Path:
        return self.maker("pretrain")._file("checkpoints", f"seed{seed}.safetensors")

    def training(self, seed: Seed) -> Path:
        """The record of a pretraining: what it came from, losses and spread of each epoch, the checkpoint's seal."""
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
                return {"run": run, **({"views": seen} if isinstance(self.run, Pretrained) else {})}
            case "calibrate":
                pruning = {"criterion": self.run.criterion} if isinstance(self.run, Pruned) else {}
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


@dataclass(frozen=True, eq=False)
class TablePlan:
    """One table of a study and the evaluations it is made from."""

    study: str
    name: str
    table: Table
    widths: tuple[float, ...]
    runs: dict[str, RunPlan]

    @property
    def kind(self) -> str:
        """The kind of protocol that evaluates all of its runs."""
        return self._shown[0].protocol.kind

    @property
    def protocols(self) -> list[str]:
        """The names of the protocols that evaluate its runs."""
        return list(dict.fromkeys(run.protocol_name for run in self._shown))

    @property
    def _shown(self) -> list[RunPlan]:
        return [self.runs[name] for row in self.table.rows for name in row.names]

    def file(self, suffix: str) -> Path:
        return Path("results", self.study, "tables", f"{self.name}.{suffix}")

    @property
    def outputs(self) -> list[Path]:
        return [self.file(suffix) for suffix in TABLE_FORMATS]

    @property
    def inputs(self) -> list[Path]:
        """The evaluations that its cells are made from, and the records of what these came from."""
        return sorted({path for files in self._sources() for path in files})

    @property
    def inputs_there(self) -> list[Path]:
        """Those of its inputs that it is made from now: an evaluation that is absent leaves its seed out."""
        there = [files for files in self._sources() if files[0].is_file()]
        return sorted({path for files in there for path in files if path.is_file()})

    def _sources(self) -> list[list[Path]]:
        """For each seed of each cell the evaluation, and the records of what it came from."""
        return [list(run.sources(seed, width)) for _, width, run in self.cells() if run for seed in run.seeds]

    def cells(self) -> list[tuple[int, float, RunPlan | None]]:
        """For each cell its row, its width, and its run; None where no run of the row has the width."""
        cells = []
        for index, row in enumerate(self.table.rows):
            for width in self.widths:
                run = self.runs.get(row.run_at(width) or "")
                cells.append((index, width, run if run and width in run.widths else None))
        return cells

    @property
    def recipe(self) -> dict[str, Any]:
        table = self.table.model_dump(mode="json")
        return {"table": table, "kind": self.kind, "protocols": self.protocols, "widths": list(self.widths)}


class Plan:
    """All of params.yaml, expanded; `file` is what it is called in sentences."""

    def __init__(self, params: Params, file: Path = Path("params.yaml")) -> None:
        self.file = file
        self.build = params.build
        self.studies = list(params.studies)
        self.datasets = {name: DatasetPlan(name, dataset) for name, dataset in params.datasets.items()}
        self.runs: dict[Address, RunPlan] = {}  # each after the one whose weights it takes
        for study_name, study in params.studies.items():
            for name in study.runs:
                self._add_run(params, (study_name, name))
        self.tables = {
            (study_name, name): self._table(study_name, study, name, table)
            for study_name, study in params.studies.items()
            for name, table in study.tables.items()
        }

    def groups(self) -> dict[tuple[str, str], list[RunPlan]]:
        """By stage and group the runs whose files differ in nothing but study, run and seed; pretraining needs none."""
        groups: dict[tuple[str, str], list[RunPlan]] = {}
        for run in self.runs.values():
            for stage in run.stages:
                if stage != "pretrain":
                    groups.setdefault((stage, run.group), []).append(run)
        return groups

    def dataset(self, name: str) -> DatasetPlan:
        """Raises UserError where params.yaml has no such data set."""
        self._require(name, [*self.datasets], "dataset")
        return self.datasets[name]

    def run(self, study: str, name: str) -> RunPlan:
        """Raises UserError where params.yaml has no such run."""
        self._require_of(study, name, self.runs, "run")
        return self.runs[study, name]

    def table(self, study: str, name: str) -> TablePlan:
        """Raises UserError where params.yaml has no such table."""
        self._require_of(study, name, self.tables, "table")
        return self.tables[study, name]

    def require_study(self, name: str) -> None:
        """Raises UserError where params.yaml has no such study."""
        self._require(name, self.studies, "study")

    def _require_of(self, study: str, name: str, known: dict[Address, Any], kind: str) -> None:
        if (study, name) not in known:
            self.require_study(study)
            self._require(name, [each for of, each in known if of == study], kind, f": the study {study!r}")

    def _require(self, name: str, known: list[str], kind: str, where: str = "") -> None:
        if name not in known:
            raise UserError(f"{self.file}{where} has no {kind} {name!r}; {suggestion(name, known)}")

    def _add_run(self, params: Params, address: Address) -> RunPlan:
        if address in self.runs:
            return self.runs[address]
        taken_from = source_of(params.studies, address)
        source = self._add_run(params, taken_from) if taken_from else None
        study, run = params.studies[address[0]], run_at(params.studies, address)
        data = source.data if isinstance(run, Pruned) else self.datasets[run.dataset]
        protocol = study.protocol_of(address[1])
        evaluation = (protocol, params.protocols[protocol], tuple(study.seeds))
        widths = tuple(widths_of(params.studies, address))
        made = self.runs[address] = RunPlan(*address, run, data, *evaluation, widths, source)
        if is_own(made.backbone):
            code_of_network(made.backbone)  # where it is absent, nothing runs at all
        return made

    def _table(self, study_name: str, study: Study, name: str, table: Table) -> TablePlan:
        runs = {run.name: run for run in self.runs.values() if run.study == study_name}
        return TablePlan(study_name, name, table, tuple(study.widths), runs)
