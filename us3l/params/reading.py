"""Reading params.yaml: what is wrong with it is said in one sentence, with file, key and value."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from us3l.params.params import Params
from us3l.utils.errors import UserError


class _Loader(yaml.CSafeLoader):
    """YAML whose keys are text, as written, each once in a mapping, and whose numbers may be 5e-5, as in YAML 1.2."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        for mapping in _mappings(node, set()):
            _take_keys_as_text(mapping)
        return node


def _mappings(node: Any, seen: set[yaml.Node]) -> Iterator[yaml.MappingNode]:
    """All mappings at and below a node, each once, however many aliases it has."""
    if isinstance(node, yaml.CollectionNode) and node not in seen:
        seen.add(node)
        is_mapping = isinstance(node, yaml.MappingNode)
        if is_mapping:
            yield node
        for child in (value for _, value in node.value) if is_mapping else node.value:
            yield from _mappings(child, seen)


def _take_keys_as_text(mapping: yaml.MappingNode) -> None:
    seen = []
    for key, _ in mapping.value:
        if key.value in seen:
            what = f"the key {key.value!r} is there twice in one mapping; keep one"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=key.start_mark)
        seen.append(key.value)
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            key.tag = "tag:yaml.org,2002:str"


_FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])


def load(path: Path) -> Params:
    """Read and check a params file. Raises UserError: file, key, value and what would be right, in one sentence."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the command where params.yaml lies, or give --params") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}; give a YAML file") from None
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
        raise UserError(f"{path}: not readable as YAML: line {line}, column {column}: {what}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error, content)}") from None


_SAID = {
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
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def _sentence(error: ValidationError, content: Any) -> str:
    """One thing that is wrong: its key, what is wrong, the value given."""
    wrong = error.errors()[0]
    kind, value, context = wrong["type"], wrong["input"], wrong.get("ctx", {})
    said = _SAID.get(kind, "").format(**context) or wrong["msg"].removeprefix("Value error, ")
    said = re.sub("^Input should be", "must be", said)
    has_value = not isinstance(value, dict) and kind not in ("missing", "at_key")
    shown = "null" if value is None else repr(value)
    return f"{_place(wrong, content) or 'the file'}: {said}{f', not {shown}' if has_value else ''}"


def _place(wrong: Any, content: Any) -> str:
    """The dotted key of an error; parts that stand for a type and not for a key of the file are left out."""
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
