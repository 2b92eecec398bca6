"""Widths of a training, in params.yaml."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from us3l.params.schema import (
    PositiveInt,
    StrictModel,
    Width,
    error_at,
    require_distinct,
    rising,
)


class Sampling(StrictModel):
    """Widths of a range that each training step takes, widest first; see us3l/training/width_sampling.py."""

    range: Annotated[tuple[Width, Width], AfterValidator(rising)] = (0.25, 1.0)
    """Narrowest and widest width multiplier."""
    widths_per_step: Annotated[PositiveInt, Field(le=100)] = 3
    """Number of widths in a training step; the official N."""
    rule: Literal["sandwich", "uniform"] = "sandwich"
    """sandwich: the widest, the narrowest and random ones (US-Nets, arXiv 1903.05134); uniform: all random."""
    schedule: Literal["dynamic", "constant"] = "dynamic"
    """dynamic: widen the range downwards by quarters of the epochs (US3L); constant: the whole range in every epoch."""

    switchable_bn_widths: ClassVar[tuple[float, ...]] = ()

    @property
    def widest(self) -> float:
        return self.range[1]

    def has(self, width: float) -> bool:
        return self.range[0] <= width <= self.range[1]

    def __str__(self) -> str:
        return f"{self.range[0]} to {self.range[1]}"

    @model_validator(mode="after")
    def _both_ends(self) -> "Sampling":
        if self.rule == "sandwich" and self.widths_per_step == 1 and self.range[0] < self.range[1]:
            raise error_at(
                "widths_per_step", "must be at least 2, not 1: the sandwich rule takes the widest and narrowest network"
            )
        return self


class FixedWidths(StrictModel):
    """The same few widths in every step (S-Nets, arXiv 1812.08928), by default each with its own BatchNorms."""

    widths: Annotated[list[Width], Field(min_length=1, max_length=100)]
    """Width multipliers of every step."""
    batch_norm: Literal["switchable", "shared"] = "switchable"
    """switchable: each width has its own BatchNorms; shared: the leading channels of the widest network's."""

    @property
    def widest(self) -> float:
        return max(self.widths)

    @property
    def switchable_bn_widths(self) -> tuple[float, ...]:
        """Widths with their own BatchNorms instead of the widest network's."""
        return tuple(width for width in self.widths if width < self.widest) if self.batch_norm == "switchable" else ()

    def has(self, width: float) -> bool:
        return width in self.widths

    def __str__(self) -> str:
        return ", ".join(str(width) for width in self.widths)

    @model_validator(mode="after")
    def _each_once(self) -> "FixedWidths":
        require_distinct(self.widths, "widths", "width")
        return self


def _kind_of_sampling(given: Any) -> str:
    fixed = "widths" in given if isinstance(given, dict) else isinstance(given, FixedWidths)
    return "widths" if fixed else "range"


def _one_width(given: Any) -> Any:
    """Replace a number by the sampling of one width, trained alone."""
    is_width = isinstance(given, int | float) and not isinstance(given, bool)
    return {"range": [given, given], "widths_per_step": 1} if is_width else given


AnySampling = Annotated[
    Annotated[Sampling, Tag("range")] | Annotated[FixedWidths, Tag("widths")],
    Discriminator(_kind_of_sampling),
    BeforeValidator(_one_width, json_schema_input_type=Width | Sampling | FixedWidths),
]


def width_label(width: float) -> str:
    """Return a width as part of a name: 1.0 is w100, 0.25 is w025, 0.275 is w0275; no dot, no two widths alike."""
    integer, decimals = str(float(width)).split(".")
    return f"w{integer}{decimals:0<2}"
