"""params.yaml as a whole, checked across fields before anything runs."""

from typing import Annotated, Any

from pydantic import Field, PrivateAttr, model_validator

from us3l.params.dataset import Dataset
from us3l.params.export import Export
from us3l.params.method import Method
from us3l.params.protocols.protocol import Protocol
from us3l.params.protocols.trained import TrainedProtocol
from us3l.params.references import Address, ResolvedRun, resolve
from us3l.params.runs import PretrainRun, PruneRun, ReuseRun, Run
from us3l.params.schema import Name, StrictModel, Text, error_at, require_distinct, suggestion
from us3l.params.study import Row, Study, Table

MAX_EVALUATIONS = 1_000_000


class Params(StrictModel):
    """params.yaml: data sets, methods, protocols and studies, by their names."""

    build: list[Name]
    """Studies that `snakemake` and `dvc repro` make when no target is given."""
    include: Annotated[list[Text], Field(default_factory=list)]
    """Files with more datasets, methods, protocols and studies, relative to this one."""
    datasets: dict[Name, Dataset]
    """Data sets by their names."""
    methods: Annotated[dict[Name, Method], Field(default_factory=dict)]
    """Methods that runs can use by their names."""
    protocols: dict[Name, Protocol]
    """Protocols by their names."""
    studies: dict[Name, Study]
    """Studies by their names."""

    _resolved: dict[Address, ResolvedRun] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Params":
        require_distinct(self.build, "build")
        require_distinct(self.include, "include")
        for index, built in enumerate(self.build):
            _require_defined(built, self.studies, f"build.{index}", "study")
        for name, study in self.studies.items():
            where = f"studies.{name}"
            require_distinct(study.seeds, f"{where}.seeds")
            require_distinct(study.widths, f"{where}.widths")
            _require_defined(study.protocol, self.protocols, f"{where}.protocol", "protocol")
            for run_name, run in study.runs.items():
                self._check_run(run, f"{where}.runs.{run_name}")
        self._resolved = resolve(self.studies)
        self._require_few_evaluations()
        for resolved in self._resolved.values():
            self._check_teacher(resolved)
            if not resolved.widths:
                widths = self.studies[resolved.address[0]].widths
                what = f"has the widths {resolved.sampling}, but the study evaluates none of them, only {widths}"
                raise error_at(resolved.key, what)
        for name, study in self.studies.items():
            for table_name, table in study.tables.items():
                self._check_table(table, name, f"studies.{name}.tables.{table_name}")
            self._check_figures(study, f"studies.{name}.figures")
            for export_name, export in study.exports.items():
                self._check_export(export, export_name, name)
        return self

    @property
    def resolved(self) -> dict[Address, ResolvedRun]:
        """All runs with the runs whose weights they take, each listed after that one."""
        return self._resolved

    def _require_few_evaluations(self) -> None:
        seeds = {name: len(study.seeds) for name, study in self.studies.items()}
        count = sum(len(run.widths) * seeds[run.address[0]] for run in self._resolved.values())
        if count > MAX_EVALUATIONS:
            what = f"have {count} evaluations, counting seeds and widths, and may have {MAX_EVALUATIONS}"
            raise error_at("studies", what)

    def _check_run(self, run: Run, where: str) -> None:
        if not isinstance(run, PruneRun):
            _require_defined(run.dataset, self.datasets, f"{where}.dataset", "dataset")
        if isinstance(run, PretrainRun):
            self._check_views(run, where)
        if isinstance(run, ReuseRun) and run.protocol:
            _require_defined(run.protocol, self.protocols, f"{where}.protocol", "protocol")

    def _check_views(self, run: PretrainRun, where: str) -> None:
        """Require views of one size where feature maps are compared position by position."""
        views = self.datasets[run.dataset].views.pretrain
        sizes = sorted({view.resized_crop.size for view in views if view.resized_crop})
        maps = run.method.feature_distillation
        if len(sizes) > 1 and maps and maps.compares_positions:
            what = f"needs views of one size, and those of {run.dataset} have {sizes}: take attention-channel or cosine"
            raise error_at(f"{where}.method.feature_distillation.loss", f"{maps.loss} {what}")

    def _check_teacher(self, resolved: ResolvedRun) -> None:
        """Require as many image channels of a frozen teacher as of its student."""
        student, other = resolved.run, resolved.weights_from
        if other is None or not isinstance(student, PretrainRun) or not isinstance(other.run, PretrainRun):
            return
        sees, given = (self.datasets[run.dataset].channels for run in (other.run, student))
        if sees != given:
            what = f"sees images of {sees} channels, and those of {student.dataset} have {given}"
            raise error_at(resolved.reference_key, f"{other.name} {what}")

    def _check_table(self, table: Table, study: str, where: str) -> None:
        kinds: dict[str, str] = {}
        require_distinct([row.label for row in table.rows], f"{where}.rows", "label")
        for index, row in enumerate(table.rows):
            self._check_row(row, study, f"{where}.rows.{index}.runs")
            for width in row.published:
                self._check_width(width, study, f"{where}.rows.{index}.published.{width}")
            for run in row.names:
                kinds.setdefault(self.protocols[self.studies[study].protocol_of(run)].kind, run)
        if len(kinds) > 1:
            (one, first), (other, second), *_ = kinds.items()
            what = f"has {first!r}, which {one} evaluates, and {second!r}, which {other} does"
            raise error_at(where, f"{what}; give each kind of protocol a table of its own")

    def _check_row(self, row: Row, study: str, where: str) -> None:
        runs = self.studies[study].runs
        if isinstance(row.runs, str):
            _require_defined(row.runs, runs, where, "run")
            return
        for width, run in row.runs.items():
            _require_defined(run, runs, f"{where}.{width}", "run")
            sampling = self._resolved[study, run].sampling
            self._check_width(width, study, f"{where}.{width}")
            if not sampling.has(width):
                raise error_at(f"{where}.{width}", f"the run {run!r} has the widths {sampling}")

    def _check_figures(self, study: Study, where: str) -> None:
        require_distinct([*study.figures], where)
        trains = any(isinstance(run, PretrainRun) for run in study.runs.values())
        needs = {"table": (study.tables, "accuracy", "agreement"), "training": (trains, "training", "views")}
        for what, (is_there, *kinds) in needs.items():
            for kind in study.figures:
                if kind in kinds and not is_there:
                    raise error_at(where, f"{kind} shows a {what}, and the study has none; leave it out")
        if "embeddings" in study.figures and not study.runs:
            raise error_at(where, "embeddings shows a run, and the study has none; leave it out")

    def _check_export(self, export: Export, name: str, study_name: str) -> None:
        study, where = self.studies[study_name], f"studies.{study_name}.exports.{name}"
        if name in study.runs:
            raise error_at(where, f"a run has the name {name!r} already; give the export another")
        _require_defined(export.run, study.runs, f"{where}.run", "run")
        for key in ("seeds", "widths", "formats"):
            require_distinct(getattr(export, key) or [], f"{where}.{key}")
        for index, seed in enumerate(export.seeds or []):
            if seed not in study.seeds:
                raise error_at(f"{where}.seeds.{index}", f"must be one of the study's seeds, {study.seeds}, not {seed}")
        run = self._resolved[study_name, export.run]
        if run.is_pruned:
            what = "is pruned: its networks keep their shape, with zeros in it: there is nothing smaller to ship"
            raise error_at(f"{where}.run", f"{export.run} {what}")
        for index, width in enumerate(export.widths or []):
            if not run.sampling.has(width):
                what = f"{export.run} was trained at the widths {run.sampling}, not at {width:g}"
                raise error_at(f"{where}.widths.{index}", f"{what}; choose one of these")
        if export.head:
            self._check_head(export, run, study.protocol_of(export.run), f"{where}.head")

    def _check_head(self, export: Export, run: ResolvedRun, protocol: str, where: str) -> None:
        if not isinstance(self.protocols[protocol], TrainedProtocol):
            raise error_at(where, f"the protocol {protocol} trains no classifier; leave head out")
        for width in export.widths or []:
            if width not in run.widths:
                what = f"no classifier is trained at width {width:g}, which the study does not evaluate"
                raise error_at(where, f"{what}; add it to the widths of the study, or leave head out")

    def _check_width(self, width: float, study: str, where: str) -> None:
        if width not in self.studies[study].widths:
            raise error_at(where, f"must be one of the study's widths, {self.studies[study].widths}")


def _require_defined(name: str, known: dict[str, Any], where: str, kind: str) -> None:
    if name not in known:
        raise error_at(where, f"no {kind} is called {name!r}; {suggestion(name, list(known))}")
