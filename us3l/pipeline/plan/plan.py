"""The plan of params.yaml: its data sets, runs, tables, figures and exports, and the jobs that make their files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from us3l.params.params import Params
from us3l.params.references import Address, ResolvedRun
from us3l.params.runs import PruneRun
from us3l.params.schema import suggestion
from us3l.params.study import Study, Table
from us3l.pipeline.code import RUN_STAGES
from us3l.pipeline.plan.dataset import DatasetPlan, PrepareJob
from us3l.pipeline.plan.export import ExportJob, ExportPlan
from us3l.pipeline.plan.figure import FigureJob, FigurePlan, figures
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.utils.errors import UserError
from us3l.utils.source import code_of_network


class Plan:
    """The data sets, runs, tables, figures and exports of a params file; `file` is its path in messages."""

    def __init__(self, params: Params, file: Path = Path("params.yaml")) -> None:
        self.file = file
        self.build, self.included = params.build, params.include
        self.studies = list(params.studies)
        self.datasets = {name: DatasetPlan(name, dataset) for name, dataset in params.datasets.items()}
        self.runs: dict[Address, RunPlan] = {}  # each after the run whose weights it takes
        for address, resolved in params.resolved.items():
            self.runs[address] = self._run_plan(params, resolved)
        self.tables = {
            (study_name, name): self._table(study_name, study, name, table)
            for study_name, study in params.studies.items()
            for name, table in study.tables.items()
        }
        self.figures = {
            (study_name, figure.name): figure
            for study_name, study in params.studies.items()
            for figure in figures(study_name, study, *self._runs_and_tables(study_name))
        }
        self.exports = {
            (study_name, name): ExportPlan(
                study_name, name, export, self.runs[study_name, export.run], self.verify_command
            )
            for study_name, study in params.studies.items()
            for name, export in study.exports.items()
        }

    def _runs_and_tables(self, study: str) -> tuple[list[RunPlan], list[TablePlan]]:
        runs = [run for run in self.runs.values() if run.study == study]
        return runs, [table for table in self.tables.values() if table.study == study]

    @property
    def files(self) -> list[Path]:
        """The params file and those that it includes."""
        return [self.file, *(self.file.parent / name for name in self.included)]

    def groups(self) -> dict[tuple[str, str], list[RunPlan]]:
        """Group runs by stage and widths: within a group, file names differ in nothing but study, run and seed.

        Pretraining is left out, because its file names do not depend on the widths.
        """
        groups: dict[tuple[str, str], list[RunPlan]] = {}
        for run in self.runs.values():
            for stage in run.stages:
                if stage != "pretrain":
                    groups.setdefault((stage, run.group), []).append(run)
        return groups

    def dataset(self, name: str) -> DatasetPlan:
        """Return a data set by its name. Raises UserError where params.yaml has no such data set."""
        self._require(name, [*self.datasets], "dataset")
        return self.datasets[name]

    def run(self, study: str, name: str) -> RunPlan:
        """Return a run by its name. Raises UserError where params.yaml has no such run."""
        self._require_of(study, name, self.runs, "run")
        return self.runs[study, name]

    def table(self, study: str, name: str) -> TablePlan:
        """Return a table by its name. Raises UserError where params.yaml has no such table."""
        self._require_of(study, name, self.tables, "table")
        return self.tables[study, name]

    def figure(self, study: str, name: str) -> FigurePlan:
        """Return a figure by its name. Raises UserError where params.yaml has no such figure."""
        self._require_of(study, name, self.figures, "figure")
        return self.figures[study, name]

    def verify_command(self, run: RunPlan, width: float) -> str:
        """Return the command that derives an accuracy again; for a run that no table shows, all that is built."""
        for table in self.tables.values():
            for cell in table.cells:
                if cell.run is run and cell.width == width:
                    return table.verify_command(cell)
        return "us3l verify --level 3"

    def require_study(self, name: str) -> None:
        """Raise UserError where params.yaml has no such study."""
        self._require(name, self.studies, "study")

    def _require_of(self, study: str, name: str, known: dict[Address, Any], kind: str) -> None:
        if (study, name) not in known:
            self.require_study(study)
            self._require(name, [each for owner, each in known if owner == study], kind, f": the study {study!r}")

    def _require(self, name: str, known: list[str], kind: str, where: str = "") -> None:
        if name not in known:
            raise UserError(f"{self.file}{where} has no {kind} {name!r}; {suggestion(name, known)}")

    def _run_plan(self, params: Params, resolved: ResolvedRun) -> RunPlan:
        study_name, name = resolved.address
        study, run = params.studies[study_name], resolved.run
        weights_from = self.runs[resolved.weights_from.address] if resolved.weights_from else None
        if isinstance(run, PruneRun):
            assert weights_from is not None  # the key weights_from is required
            data = weights_from.data
        else:
            data = self.datasets[run.dataset]
        protocol = study.protocol_of(name)
        run_plan = RunPlan(
            study_name,
            name,
            run,
            data,
            protocol,
            params.protocols[protocol],
            tuple(study.seeds),
            resolved.widths,
            resolved.sampling,
            weights_from,
        )
        code_of_network(run_plan.backbone)  # raises UserError where the source of a custom network is missing
        return run_plan

    def _table(self, study_name: str, study: Study, name: str, table: Table) -> TablePlan:
        runs = {run.name: run for run in self.runs.values() if run.study == study_name}
        return TablePlan(study_name, name, table, tuple(study.widths), runs)


def jobs(plan: Plan, studies: Iterable[str]) -> list[Job]:
    """Return the jobs of the studies, and those of other studies whose weights they take; ordered as in `jobs_for`."""
    wanted = set(studies)
    runs = [run for run in plan.runs.values() if run.study in wanted]
    exports = [export for export in plan.exports.values() if export.study in wanted]
    drawn = [figure for figure in plan.figures.values() if figure.study in wanted]
    return [
        *jobs_for(plan, runs, [table for table in plan.tables.values() if table.study in wanted]),
        *(FigureJob(figure) for figure in drawn),
        *(ExportJob(export, seed) for export in exports for seed in export.seeds),
    ]


def jobs_for(plan: Plan, runs: Iterable[RunPlan], tables: Iterable[TablePlan]) -> list[Job]:
    """Return the jobs that make the tables and the evaluations of the runs, each after those whose files it reads."""
    wanted = {origin for run in runs for origin in [*run.ancestors, (run, run.protocol.kind)]}
    pairs = [(stage, run) for stage in RUN_STAGES for run in plan.runs.values() if (run, stage) in wanted]
    datasets = dict.fromkeys(run.data for _, run in pairs)
    return [
        *(PrepareJob(data) for data in datasets),
        *(RunStage(run, stage, seed) for stage, run in pairs for seed in run.seeds),
        *(TableJob(table) for table in tables),
    ]


def jobs_behind(job: Job, everything: list[Job]) -> list[Job]:
    """Return the jobs of `everything`, in its order, whose files the files of a job depend on, directly or not."""
    producers = {path: each for each in everything for path in each.outputs}
    found: set[Job] = set()
    waiting = [job]
    while waiting:
        behind = {producers[path] for path in waiting.pop().inputs} - found
        found |= behind
        waiting += behind
    return [each for each in everything if each in found]
