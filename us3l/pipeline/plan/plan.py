"""All that params.yaml asks for."""

from pathlib import Path
from typing import Any

from us3l.params.backbone import is_custom
from us3l.params.params import Params
from us3l.params.references import Address, run_at, source_of, widths_of
from us3l.params.runs import PruneRun
from us3l.params.schema import suggestion
from us3l.params.study import Study, Table
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import TablePlan
from us3l.utils.errors import UserError
from us3l.utils.source import code_of_network


class Plan:
    """All of params.yaml, expanded; `file` is what it is called in sentences."""

    def __init__(self, params: Params, file: Path = Path("params.yaml")) -> None:
        self.file = file
        self.build, self.included = params.build, params.include
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

    @property
    def files(self) -> list[Path]:
        """The params file and those that it includes."""
        return [self.file, *(self.file.parent / name for name in self.included)]

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
        data = source.data if isinstance(run, PruneRun) else self.datasets[run.dataset]
        protocol = study.protocol_of(address[1])
        evaluation = (protocol, params.protocols[protocol], tuple(study.seeds))
        widths = tuple(widths_of(params.studies, address))
        made = self.runs[address] = RunPlan(*address, run, data, *evaluation, widths, source)
        if is_custom(made.backbone):
            code_of_network(made.backbone)  # where it is absent, nothing runs at all
        return made

    def _table(self, study_name: str, study: Study, name: str, table: Table) -> TablePlan:
        runs = {run.name: run for run in self.runs.values() if run.study == study_name}
        return TablePlan(study_name, name, table, tuple(study.widths), runs)
