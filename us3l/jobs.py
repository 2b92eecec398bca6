"""Jobs: what Snakemake runs in one go, and the stage of dvc.yaml that each belongs to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.plan import DatasetPlan, Plan, RunPlan, TablePlan


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
        return f"{self.stage}_{self.of.group}" if self.stage in ("calibrate", "linear") else self.stage

    @property
    def dvc_stage(self) -> str:
        """The stage of dvc.yaml: `prepare@digits`, `digits-pretrain@us3l`; it has all of a run's seeds."""
        return "@".join(["-".join([*self.names[:-1], self.stage]), self.names[-1]])


def jobs(plan: Plan, studies: list[str]) -> list[Job]:
    """All jobs of the studies, each after those whose files it reads."""
    runs = [run for run in plan.runs.values() if run.study in studies]
    datasets = {run.data.name: run.data for run in runs}
    return [
        *(Job("prepare", data) for data in datasets.values()),
        *(Job(stage, run, seed) for stage in ("pretrain", "calibrate", "linear") for run in runs for seed in run.seeds),
        *(Job("table", table) for table in plan.tables.values() if table.study in studies),
    ]
