"""Reader of params.yaml and the files that it includes; an error is one sentence with file, key and value."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from us3l.params.language import Content, LanguageError, expand
from us3l.params.params import Params
from us3l.params.yaml_file import read_yaml
from us3l.utils.errors import UserError

MOST_INCLUDED = 100  # files
MOST_CHARACTERS = 1_000  # of an error message
SECTIONS = ("datasets", "methods", "protocols", "studies")  # the keys of an included file


def load(path: Path) -> Params:
    """Read and check a params file. Raises UserError: file, key, value and what would be right, in one sentence."""
    content, origins = _read(path)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        key, message = _sentence(error, content)
        raise UserError(f"{_origin(key, origins, path)}: {key or 'the file'}: {_shortened(message)}") from None


def read(path: Path) -> Content:
    """Read a params file as plain values, with its includes and abbreviations expanded.

    Raises UserError where a file is not readable or an abbreviation cannot be expanded.
    """
    content = _read(path)[0]
    return {key: value for key, value in content.items() if key != "include"}


Origins = dict[tuple[str, str], Path]  # the included file of a section's entry


def _read(path: Path) -> tuple[Any, Origins]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        return content, {}
    content, origins = _with_included(content, path)
    try:
        return expand(content), origins
    except LanguageError as error:
        raise UserError(f"{_origin(error.key, origins, path)}: {error.key}: {_shortened(str(error))}") from None


def _with_included(content: Content, path: Path) -> tuple[Content, Origins]:
    names = content.get("include")
    origins: Origins = {}
    if isinstance(names, list) and len(names) > MOST_INCLUDED:
        raise UserError(f"{path}: include: names {len(names)} files, and may name {MOST_INCLUDED}")
    for name in names if isinstance(names, list) else []:
        file = path.parent / str(name)
        included = read_yaml(file)
        if not isinstance(included, dict) or not included.keys() <= set(SECTIONS):
            raise UserError(f"{file}: an included file must be a mapping with the keys {', '.join(SECTIONS)}, or some")
        for section, entries in included.items():
            if not isinstance(entries, dict) or not isinstance(content.get(section, {}), dict):
                raise UserError(f"{file}: {section}: must be a mapping of names")
            for entry in entries.keys() & content.get(section, {}).keys():
                other = origins.get((section, entry), path)
                raise UserError(f"{file}: {section}.{entry}: is in {other} already; keep one")
            origins |= {(section, entry): file for entry in entries}
            content = content | {section: content.get(section, {}) | entries}
    return content, origins


def _origin(key: str, origins: Origins, path: Path) -> Path:
    section, _, rest = key.partition(".")
    return origins.get((section, rest.partition(".")[0]), path)


_MESSAGES = {
    "missing": "is missing",
    "union_tag_not_found": "is missing",
    "union_tag_invalid": "must be one of {expected_tags}, not {tag!r}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def _sentence(error: ValidationError, content: Any) -> tuple[str, str]:
    """Return the key of the first error, and what is wrong with its value."""
    wrong = error.errors()[0]
    kind, value, context = wrong["type"], wrong["input"], wrong.get("ctx", {})
    message = _MESSAGES.get(kind, "").format(**context) or wrong["msg"].removeprefix("Value error, ")
    message = re.sub("^Input should be", "must be", message)
    has_value = not isinstance(value, dict) and kind not in ("missing", "at_key")
    shown = "null" if value is None else repr(value)
    return _dotted_key(wrong, content), f"{message}{f', not {shown}' if has_value else ''}"


def _shortened(message: str) -> str:
    """Leave out the middle of a message that shows a large value."""
    half = MOST_CHARACTERS // 2
    return message if len(message) <= MOST_CHARACTERS else f"{message[:half]} … {message[-half:]}"


def _dotted_key(wrong: Any, content: Any) -> str:
    """Return the dotted key of an error, without the parts that name a type instead of a key of the file."""
    keys = []
    for part in wrong["loc"]:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            continue
        keys.append(str(part))
    context = wrong.get("ctx", {})
    if wrong["type"] == "missing":
        keys.append(str(wrong["loc"][-1]))
    return ".".join([*keys, *(context[name].strip("'") for name in ("key", "discriminator") if name in context)])
