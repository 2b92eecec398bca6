"""Studies in params.yaml: runs, and the tables that compare them."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Strict, Tag, ValidatorFunctionWrapHandler, WrapValidator

from us3l.params.runs import ReuseRun, Run
from us3l.params.schema import Float, Name, Seed, StrictModel, Text, Width, WidthInText


def _each_width_once(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    runs = check(given)
    if len(runs) < len(given):
        raise ValueError("names a width twice; name each once")
    return runs


RunOfEachWidth = Annotated[dict[WidthInText, Name], Field(min_length=1), WrapValidator(_each_width_once)]


class Published(StrictModel):
    """A figure that others have published: top-1 accuracy in percent, and where it stands."""

    top1: Annotated[Float, Field(ge=0, le=100)]
    """Top-1 accuracy in percent."""
    source: Text
    """Where the figure stands."""


PublishedOfEachWidth = Annotated[
    dict[WidthInText, Published], Field(default_factory=dict), WrapValidator(_each_width_once)
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
    """One line of a table: a run, or for each width the run that stands for it; and figures that others published."""

    label: Text
    """Text at the beginning of the row."""
    runs: RunOrRuns
    """A run for all widths, or for each width its run."""
    published: PublishedOfEachWidth
    """Figures that others published, by width."""

    @property
    def names(self) -> list[str]:
        """All runs of the row."""
        return [self.runs] if isinstance(self.runs, str) else list(self.runs.values())

    def run_at(self, width: float) -> str | None:
        """The run whose result stands in the column of `width`; None where the row names none."""
        return self.runs if isinstance(self.runs, str) else self.runs.get(width)


class Table(StrictModel):
    """Rows are runs evaluated by one kind of protocol, columns are the study's widths, cells are top-1 accuracies.

    Published figures stand beside them where a row has some, or where `published` is true.
    """

    title: Text
    """Title of the table."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """Rows, from top to bottom."""
    published: Annotated[bool, Strict()] = False
    """Show the columns of published figures even where a table has none."""

    @property
    def shows_published(self) -> bool:
        return self.published or any(row.published for row in self.rows)


class Study(StrictModel):
    """Runs that are evaluated alike, and the tables that compare them."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
    """Seeds with which each run is trained and evaluated."""
    widths: Annotated[list[Width], Field(min_length=1)]
    """Width multipliers to evaluate at: the columns of the tables."""
    protocol: Name
    """Protocol of the evaluations."""
    runs: dict[Name, Run]
    """Runs by their names."""
    tables: dict[Name, Table]
    """Tables by their names."""

    def protocol_of(self, run: str) -> str:
        """The protocol that evaluates a run: its own, or the study's."""
        own = self.runs[run].protocol if isinstance(self.runs[run], ReuseRun) else None
        return own or self.protocol
