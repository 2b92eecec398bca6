"""Base class of the params classes, which refuses unknown keys, and the types of their values."""

import difflib
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from us3l.params.descriptions import field_descriptions


@dataclass(frozen=True)
class Matching:
    """Annotation of text that must match a pattern as a whole; `what` describes it in error messages."""

    pattern: str
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.what}")
        return text


def rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("must be [low, high]")
    return ends


Float = Annotated[float, Strict()]
UnitInterval = Annotated[Float, Field(gt=0, le=1)]
OpenUnitInterval = Annotated[Float, Field(gt=0, lt=1)]
Probability = Annotated[Float, Field(ge=0, le=1)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
NonNegativeInt = Annotated[int, Strict(), Field(ge=0)]
PositiveInt = Annotated[int, Strict(), Field(ge=1)]
Pixels = Annotated[PositiveInt, Field(le=4096)]
AtLeastTwo = Annotated[int, Strict(), Field(ge=2)]
Seed = Annotated[NonNegativeInt, Field(lt=2**64)]
Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(rising)]
WidthKey = Annotated[float, Field(ge=0.25, le=1)]
Width = Annotated[WidthKey, Strict()]
MAX_LISTED = 16  # names in an error message: the number of keys of the largest class
MAX_COMPARED = 1_000  # names, among which a similar one is looked for
MAX_CHAIN = 100  # runs of which each is like the next, or takes its weights
_NAME = "[a-z0-9]+(-[a-z0-9]+)*"
LONGEST_NAME = 100  # characters: with seed, width and suffix, it is still the name of a file
Name = Annotated[
    str, Field(max_length=LONGEST_NAME), Matching(_NAME, "lower-case letters and digits, with single hyphens between")
]
Reference = Annotated[str, Matching(f"({_NAME}/)?{_NAME}", "the name of a run of this study, or study/run")]
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # characters that end a line, or that a terminal obeys
Text = Annotated[str, Matching(rf"[^\S{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*", "one line of text")]


def error_at(key: str, message: str) -> PydanticCustomError:
    """Return an error about a key, relative to the model that raises it."""
    return PydanticCustomError("at_key", "{message}", {"key": key, "message": message})


def suggestion(name: str, known: list[str]) -> str:
    """Suggest the known name that is close to this one, or list the known names."""
    close, more = difflib.get_close_matches(name, known[:MAX_COMPARED], n=1), len(known) - MAX_LISTED
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(known[:MAX_LISTED]) or 'none'}{f', … and {more} more' if more > 0 else ''}"


def require_distinct(values: list[Any], where: str, what: str = "value") -> None:
    """Raise an error where a value occurs twice."""
    if len(set(values)) < len(values):
        raise error_at(where, f"{values} names a {what} twice; name each once")


class StrictModel(BaseModel):
    """A model that refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe each field; pydantic itself would read the source at each start."""
        made = handler(core)
        properties = handler.resolve_ref_schema(made)["properties"]
        for name, description in field_descriptions(cls).items():
            if name in properties:
                properties[name]["description"] = description
        return made

    def sets(self, key: str) -> bool:
        """Tell whether a setting differs from its default."""
        return getattr(self, key) != type(self).model_fields[key].default

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        known = list(cls.model_fields)
        if isinstance(given, dict):
            for key in given:
                if key not in known:
                    raise error_at(str(key), f"unknown key; {suggestion(str(key), known)}")
        elif not isinstance(given, cls):
            raise ValueError(f"must be a mapping with the keys {', '.join(known)}")
        return given
