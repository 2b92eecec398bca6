"""Records that refuse what they do not know, and the values in them."""

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


@dataclass(frozen=True)
class Matching:
    """Text that matches a pattern as a whole; `what` says in a sentence what it must be."""

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
AtLeastTwo = Annotated[int, Strict(), Field(ge=2)]
Seed = Annotated[NonNegativeInt, Field(lt=2**64)]
Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(rising)]
WidthInText = Annotated[float, Field(ge=0.25, le=1)]
Width = Annotated[WidthInText, Strict()]
LISTED = 16  # names in a sentence: as many as the keys of the largest record
_NAME = "[a-z0-9]+(-[a-z0-9]+)*"
Name = Annotated[str, Matching(_NAME, "lower-case letters and digits, with single hyphens between")]
Reference = Annotated[str, Matching(f"({_NAME}/)?{_NAME}", "the name of a run of this study, or study/run")]
Text = Annotated[str, Matching(r".*\S.*", "one line of text")]


def error_at(key: str, said: str) -> PydanticCustomError:
    """What is wrong with a key inside the record that is checked."""
    return PydanticCustomError("at_key", "{said}", {"key": key, "said": said})


def suggestion(name: str, known: list[str]) -> str:
    """The known name that is like this one, or the first of them."""
    close, more = difflib.get_close_matches(name, known, n=1), len(known) - LISTED
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(known[:LISTED]) or 'none'}{f', … and {more} more' if more > 0 else ''}"


def require_distinct(values: list[Any], where: str, what: str = "value") -> None:
    """Raise an error where one of the values stands twice."""
    if len(set(values)) < len(values):
        raise error_at(where, f"{values} names a {what} twice; name each once")


class StrictModel(BaseModel):
    """A record that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    def sets(self, key: str) -> bool:
        """Whether a setting has another value than its default."""
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
