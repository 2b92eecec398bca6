"""Studies in params.yaml: runs, the tables that compare them, and the exports of their networks."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Strict, Tag, ValidatorFunctionWrapHandler, WrapValidator

from us3l.params.export import Export
from us3l.params.runs import ReuseRun, Run
from us3l.params.schema import Float, Name, Seed, StrictModel, Text, Width, WidthKey


def _each_width_once(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    runs = check(given)
    if len(runs) < len(given):
        raise ValueError("names a width twice; name each once")
    return runs


RunOfEachWidth = Annotated[dict[WidthKey, Name], Field(min_length=1), WrapValidator(_each_width_once)]


class Published(StrictModel):
    """A published result: top-1 accuracy in percent, and its source."""

    top1: Annotated[Float, Field(ge=0, le=100)]
    """Top-1 accuracy in percent."""
    source: Text
    """Source of the result, such as a paper and its table."""


PublishedOfEachWidth = Annotated[
    dict[WidthKey, Published], Field(default_factory=dict), WrapValidator(_each_width_once)
]
RunOrRuns = Annotated[
    Annotated[Name, Tag("run")] | Annotated[RunOfEachWidth, Tag("runs")],
    Discriminator(
        lambda given: {str: "run", dict: "runs"}.get(type(given)),
        custom_error_type="run_or_runs",
        custom_error_message="must be a run, or a mapping of widths to runs",
    ),
]


class Row(StrictModel):
    """A row of a table: one run, or one for each width, and published results."""

    label: Text
    """Text at the beginning of the row."""
    runs: RunOrRuns
    """A run for all widths, or for each width its run."""
    published: PublishedOfEachWidth
    """Published results, by width."""

    @property
    def names(self) -> list[str]:
        """All runs of the row."""
        return [self.runs] if isinstance(self.runs, str) else list(self.runs.values())

    def run_at(self, width: float) -> str | None:
        """Return the run whose result is in the column of `width`; None where the row names none."""
        return self.runs if isinstance(self.runs, str) else self.runs.get(width)


class Table(StrictModel):
    """A table of top-1 accuracies: rows are runs evaluated by one kind of protocol, columns the study's widths.

    It shows published results beside them where a row has some, or where `published` is true.
    """

    title: Text
    """Title of the table."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """Rows, from top to bottom."""
    published: Annotated[bool, Strict()] = False
    """Show the columns of published results even where the table has none."""
    training_cost: Annotated[bool, Strict()] = False
    """Show what the trainings of a row cost, for one seed: hours, and hours of processor cores or of GPUs."""

    @property
    def shows_published(self) -> bool:
        return self.published or any(row.published for row in self.rows)


class Study(StrictModel):
    """Runs with the same seeds, widths and protocol, the tables that compare them, and what is exported."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)]
    """Seeds with which each run is trained and evaluated."""
    widths: Annotated[list[Width], Field(min_length=1, max_length=100)]
    """Width multipliers to evaluate at: the columns of the tables."""
    protocol: Name
    """Protocol of the evaluations."""
    runs: dict[Name, Run]
    """Runs by their names."""
    tables: dict[Name, Table]
    """Tables by their names."""
    exports: Annotated[dict[Name, Export], Field(default_factory=dict)]
    """Exports by their names."""

    def protocol_of(self, run: str) -> str:
        """Return the protocol that evaluates a run: its own, or the study's."""
        evaluated = self.runs[run]
        own = evaluated.protocol if isinstance(evaluated, ReuseRun) else None
        return own or self.protocol
