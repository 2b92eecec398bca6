"""Jobs: what Snakemake runs in one go, and the stage of dvc.yaml that each belongs to."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.pipeline.code import STAGES_OF_RUNS
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan
from us3l.pipeline.plan.table import TablePlan


@dataclass(frozen=True, eq=False)
class Job:
    """A stage at work on a data set, on one seed of a run, or on a table."""

    stage: str
    of: DatasetPlan | RunPlan | TablePlan
    seed: int | None = None

    @property
    def names(self) -> list[str]:
        return [self.of.name] if isinstance(self.of, DatasetPlan) else [self.of.study, self.of.name]

    @property
    def command(self) -> str:
        """What makes it, after the word us3l."""
        return " ".join([self.stage, *self.names, *([] if self.seed is None else [str(self.seed)])])

    @property
    def recipe(self) -> dict[str, Any]:
        return self.of.recipe(self.stage) if isinstance(self.of, RunPlan) else self.of.recipe

    @property
    def inputs(self) -> list[Path]:
        match self.of:
            case DatasetPlan():
                return []
            case RunPlan():
                return self.of.inputs(self.stage, self.seed)
            case TablePlan():
                return self.of.inputs

    @property
    def outputs(self) -> list[Path]:
        return self.of.outputs(self.stage, self.seed) if isinstance(self.of, RunPlan) else self.of.outputs

    @property
    def record(self) -> Path:
        """The file that says what the others came from."""
        match self.of:
            case DatasetPlan():
                return self.of.record
            case RunPlan():
                return self.of.record(self.stage, self.seed)
            case TablePlan():
                return self.of.file("json")

    @property
    def done(self) -> bool:
        """Whether all of its files are there, up to date or not."""
        return all(path.is_file() for path in self.outputs)

    @property
    def rule(self) -> str:
        """The rule of the Snakefile."""
        grouped = isinstance(self.of, RunPlan) and self.stage != "pretrain"
        return f"{self.stage}_{self.of.group}" if grouped else self.stage

    @property
    def dvc_stage(self) -> str:
        """The stage of dvc.yaml: `prepare@digits`, `digits-pretrain@us3l`; it has all of a run's seeds.

        `digits-features_linear@us3l` is no stage of a study digits-features. A training with a teacher depends on more
        than others, so that it is of another group: `digits-pretrain_with_teacher@student`.
        """
        taught = self.stage == "pretrain" and isinstance(self.of, RunPlan) and self.of.source
        stage = "pretrain_with_teacher" if taught else self.stage.replace("-", "_")
        return "@".join(["-".join([*self.names[:-1], stage]), self.names[-1]])


def jobs(plan: Plan, studies: list[str]) -> list[Job]:
    """All jobs of the studies, and those of other studies whose weights they take; in the order of `jobs_for`."""
    runs = [run for run in plan.runs.values() if run.study in studies]
    return jobs_for(plan, runs, [table for table in plan.tables.values() if table.study in studies])


def jobs_for(plan: Plan, runs: Iterable[RunPlan], tables: Iterable[TablePlan]) -> list[Job]:
    """The jobs that make the tables and the evaluations of the runs, each after those whose files it reads."""
    wanted = {origin for run in runs for origin in [*run.origins, (run, run.protocol.kind)]}
    pairs = [(stage, run) for stage in STAGES_OF_RUNS for run in plan.runs.values() if (run, stage) in wanted]
    datasets = dict.fromkeys(run.data for _, run in pairs)
    return [
        *(Job("prepare", data) for data in datasets),
        *(Job(stage, run, seed) for stage, run in pairs for seed in run.seeds),
        *(Job("table", table) for table in tables),
    ]
