"""Reader of YAML files with unique text keys and the numbers of YAML 1.2."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from us3l.utils.errors import UserError


class _Loader(yaml.CSafeLoader):
    """A loader whose keys are text, as written, and unique in a mapping; 5e-5 is a number, as in YAML 1.2."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        for mapping in _mappings(node, set()):
            _take_keys_as_text(mapping)
        return node


def _mappings(node: Any, seen: set[yaml.Node]) -> Iterator[yaml.MappingNode]:
    """Yield all mappings at and below a node, each once, however many aliases it has."""
    if not isinstance(node, yaml.CollectionNode) or node in seen:
        return
    seen.add(node)
    children = node.value
    if isinstance(node, yaml.MappingNode):
        yield node
        children = [value for _, value in node.value]
    for child in children:
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


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain values. Raises UserError: the file, and the line and column of what is wrong."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the command where params.yaml lies, or give --params") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}; give a YAML file") from None
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: not readable as YAML: {place}{what}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
