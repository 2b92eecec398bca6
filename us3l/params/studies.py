"""Studies in params.yaml, and params.yaml as a whole: typed, closed, checked across fields before anything runs."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from us3l.params.data import Dataset
from us3l.params.evaluation import Protocol
from us3l.params.schema import Closed, Line, Name, Seed, Width, WidthInText, at, suggestion
from us3l.params.training import Run


def _each_width_once(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    runs = check(given)
    if len(runs) < len(given):
        raise ValueError("names a width twice; name each once")
    return runs


RunOfEachWidth = Annotated[dict[WidthInText, Name], Field(min_length=1), WrapValidator(_each_width_once)]
RunOrRuns = Annotated[
    Annotated[Name, Tag("run")] | Annotated[RunOfEachWidth, Tag("runs")],
    Discriminator(
        lambda given: {str: "run", dict: "runs"}.get(type(given)),
        custom_error_type="run_or_runs",
        custom_error_message="must be a run, or a mapping of widths to runs",
    ),
]


class Row(Closed):
    """One line of a table: a run, or for each width the run that stands for it."""

    label: Line
    runs: RunOrRuns

    def run_at(self, width: float) -> str | None:
        """The run whose result stands in the column of `width`; None where the row names none."""
        return self.runs if isinstance(self.runs, str) else self.runs.get(width)


class Table(Closed):
    """Rows are runs, columns are the study's widths, cells are top-1 accuracies."""

    title: Line
    rows: Annotated[list[Row], Field(min_length=1)]


class Study(Closed):
    """Runs that are evaluated alike, and the tables that compare them."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
    widths: Annotated[list[Width], Field(min_length=1)]
    protocol: Name
    runs: dict[Name, Run]
    tables: dict[Name, Table]


class Params(Closed):
    """params.yaml. `build` names the studies that snakemake and `dvc repro` make when no target is given."""

    build: list[Name]
    datasets: dict[Name, Dataset]
    protocols: dict[Name, Protocol]
    studies: dict[Name, Study]

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Params":
        _distinct(self.build, "build")
        for index, study in enumerate(self.build):
            _defined(study, self.studies, f"build.{index}", "study")
        for name, study in self.studies.items():
            where = f"studies.{name}"
            _distinct(study.seeds, f"{where}.seeds")
            _distinct(study.widths, f"{where}.widths")
            _defined(study.protocol, self.protocols, f"{where}.protocol", "protocol")
            for run_name, run in study.runs.items():
                _defined(run.dataset, self.datasets, f"{where}.runs.{run_name}.dataset", "dataset")
                if not any(run.sampling.has(width) for width in study.widths):
                    what = f"has the widths {run.sampling}, but the study evaluates none of them, only {study.widths}"
                    raise at(f"{where}.runs.{run_name}", what)
            for table_name, table in study.tables.items():
                for index, row in enumerate(table.rows):
                    _check_row(row, study, f"{where}.tables.{table_name}.rows.{index}.runs")
        return self


def _check_row(row: Row, study: Study, where: str) -> None:
    if isinstance(row.runs, str):
        _defined(row.runs, study.runs, where, "run")
        return
    for width, run in row.runs.items():
        _defined(run, study.runs, f"{where}.{width}", "run")
        sampling = study.runs[run].sampling
        if width not in study.widths:
            raise at(f"{where}.{width}", f"must be one of the study's widths, {study.widths}")
        if not sampling.has(width):
            raise at(f"{where}.{width}", f"the run {run!r} has the widths {sampling}")


def _defined(name: str, known: dict[str, Any], where: str, kind: str) -> None:
    if name not in known:
        raise at(where, f"no {kind} is called {name!r}; {suggestion(name, list(known))}")


def _distinct(values: list[Any], where: str) -> None:
    if len(set(values)) < len(values):
        raise at(where, f"{values} names a value twice; name each once")
