"""A figure of params.yaml: what it shows, and the job that draws it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from us3l.params.runs import PretrainRun
from us3l.params.sampling import width_label
from us3l.params.study import FigureKind, Study
from us3l.pipeline.code import code
from us3l.pipeline.identity import Identity
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.plan.job import Job, Seals
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import TablePlan
from us3l.utils.source import code_of_network

SUFFIXES = ("svg", "png")


@dataclass(frozen=True, eq=False)
class FigurePlan:
    """One figure of a study: of a table, of a data set, or of runs."""

    study: str
    kind: FigureKind
    runs: tuple[RunPlan, ...] = ()
    table: TablePlan | None = None
    data: DatasetPlan | None = None

    @property
    def name(self) -> str:
        of = self.table.name if self.table else self.data.name if self.kind == "views" and self.data else ""
        return "-".join([self.kind, *([of] if of else [])])

    @property
    def shown_table(self) -> TablePlan:
        assert self.table is not None  # of accuracy and agreement
        return self.table

    @property
    def shown_data(self) -> DatasetPlan:
        assert self.data is not None  # of views and embeddings
        return self.data

    @cached_property
    def records(self) -> list[Path]:
        """Records whose values it shows."""
        if self.table:
            cells = [(cell.run, cell.width) for cell in self.table.cells if cell.run]
            return sorted({run.evaluation_record(seed, width) for run, width in cells for seed in run.seeds})
        trained = self.runs if self.kind == "training" else ()
        return [run.training_record(seed) for run in trained for seed in run.seeds]

    @cached_property
    def networks(self) -> dict[Path, float]:
        """Networks whose embeddings it shows: the widest, a middle and the narrowest of a run, with their widths."""
        if self.kind != "embeddings":
            return {}
        [run] = self.runs
        widths = sorted(run.widths, reverse=True)
        chosen = dict.fromkeys((widths[0], widths[len(widths) // 2], widths[-1]))
        return {run.network(run.seeds[0], width): width for width in chosen}


def figures(name: str, study: Study, runs: list[RunPlan], tables: list[TablePlan]) -> Iterator[FigurePlan]:
    """Yield the figures of a study: accuracy and agreement of each table, views of each data set that it trains on."""
    trained = tuple(run for run in runs if isinstance(run.run, PretrainRun))
    for kind in study.figures:
        match kind:
            case "accuracy" | "agreement":
                yield from (FigurePlan(name, kind, table=table) for table in tables)
            case "training":
                yield FigurePlan(name, kind, trained)
            case "views":
                for data in dict.fromkeys(run.data for run in trained):
                    yield FigurePlan(name, kind, data=data)
            case "embeddings":
                yield FigurePlan(name, kind, (runs[0],), data=runs[0].data)


@dataclass(frozen=True, eq=False)
class FigureJob(Job):
    """The drawing of a figure."""

    figure: FigurePlan
    stage = "figure"

    @property
    def names(self) -> tuple[str, ...]:
        return self.figure.study, self.figure.name

    @property
    def code(self) -> dict[str, str]:
        """Hashes of the code of this kind of figure, and of a custom network that it shows."""
        backbones = {run.backbone for run in self.figure.runs if self.figure.networks}
        networks = [code_of_network(backbone) for backbone in backbones]
        return code(f"{self.stage} {self.figure.kind}") | {name: each for of in networks for name, each in of.items()}

    @property
    def stage_params(self) -> dict[str, Any]:
        figure = self.figure
        params: dict[str, Any] = {"kind": figure.kind}
        if table := figure.table:
            rows = [row.model_dump(mode="json", include={"label", "runs"}) for row in table.table.rows]
            params |= {"title": table.table.title, "rows": rows, "widths": list(table.widths), "measure": table.measure}
        if figure.runs:
            params["runs"] = [run.name for run in figure.runs]
        if figure.kind == "training":
            params["samplings"] = [run.sampling.model_dump(mode="json") for run in figure.runs]
        if figure.data:
            shown = {"normalize", "test", *(("pretrain", "linear") if figure.kind == "views" else ())}
            params["views"] = figure.data.dataset.views.model_dump(mode="json", include=shown)
        return params

    @cached_property
    def inputs(self) -> list[Path]:
        files = self.figure.data.files if self.figure.data else []
        return [*files, *self.figure.networks, *self.figure.records]

    @property
    def plain_files(self) -> list[Path]:
        return [self._file(suffix) for suffix in SUFFIXES]

    @property
    def outputs(self) -> list[Path]:
        return [*self.plain_files, self.record]

    @property
    def record(self) -> Path:
        return self._file("json")

    def _file(self, suffix: str) -> Path:
        return Path("results", self.figure.study, "figures", f"{self.figure.name}.{suffix}")

    def identities(self, seals: Seals) -> dict[Path, Identity]:
        figure = self.figure
        origin: dict[str, Any] = {"inputs": {str(path): seals.record(path) for path in figure.records}}
        if figure.data:
            origin["data"] = seals.data(figure.data.folder)
        if figure.networks:
            origin["networks"] = {width_label(width): seals.weights(path) for path, width in figure.networks.items()}
        return {self.record: self.identify(**origin)}
