"""The page docs/params.md: every key of a params file with its type, default and meaning."""

import json
from typing import Any

from us3l.params.json_schema import Schema, params_schema

INTRODUCTION = """\
# Keys of a params file

`us3l schema` writes this page, and `params.schema.json` for editors, from the classes of `us3l/params`. `us3l plan`
checks a file; `us3l plan --show STUDY/RUN` prints a run with everything written out.

A file that `include` names has the keys `datasets`, `methods`, `protocols` and `studies`, or some of them. A key
without a default must be given, by the run itself or by the run that it is `like`.
"""


def params_documentation() -> str:
    """Return the page as Markdown."""
    schema = params_schema()
    sections = [_section("params.yaml", schema)]
    sections += [_section(name, schema["$defs"][name]) for name in _in_order(schema)]
    return "\n".join([INTRODUCTION, *sections])


def _in_order(schema: Schema) -> list[str]:
    """Return the names of the definitions in the order in which a reader of the file meets them."""
    found: list[str] = []
    waiting = _references(schema["properties"])
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting = [*_references(schema["$defs"][name]), *waiting]
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        mine = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
        return mine + [name for value in schema.values() for name in _references(value)]
    return [name for value in schema for name in _references(value)] if isinstance(schema, list) else []


def _section(name: str, definition: Schema) -> str:
    rows = [_row(key, field) for key, field in definition["properties"].items()]
    table = "\n".join(["| key | type | default | |", "| --- | --- | --- | --- |", *rows])
    return f"## {name}\n\n{definition['description']}\n\n{table}\n"


def _row(key: str, field: Schema) -> str:
    default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
    cells = (f"`{key}`", _type(field), default, field.get("description", ""))
    return f"| {' | '.join(' '.join(cell.replace('|', '&#124;').split()) for cell in cells)} |"


def _type(field: Schema) -> str:
    """Return a type in words, with its bounds; records link to their sections."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(dict.fromkeys(_type(each) for each in field[union]))
    match field.get("type"):
        case "array":
            items = field.get("prefixItems")
            return f"[{', '.join(map(_type, items))}]" if items else f"list of {_type(field.get('items', {}))}"
        case "object":
            [values] = (
                field["patternProperties"].values() if "patternProperties" in field else [field["additionalProperties"]]
            )
            return f"mapping of names to {_type(values)}"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case str(kind):
            return kind + _bounds(field)
    return "anything"


def _bounds(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field]
    return f" {' and '.join(bounds)}" if bounds else ""
