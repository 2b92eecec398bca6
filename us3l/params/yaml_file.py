"""Reader of YAML files with unique text keys and the numbers of YAML 1.2.

Aliases repeat what their anchors name, and repetitions of repetitions grow without bound: what a file says is counted
as if it were written out, before any of it is built.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from us3l.utils.errors import UserError
from us3l.utils.reading import MOST_DEPTH, read_plain

MOST_BYTES = 2**22  # of a params file; that of 1,000 runs has 200 kB
MOST_VALUES = 100_000  # of a params file, aliases written out; 1,000 runs written in full have 60,000
MOST_CHARACTERS = 200  # of a key, or of a number; a name of more than 100 is refused by its own sentence
LINE = 100  # characters of a text that count as one value


class _Loader(yaml.CSafeLoader):
    """A loader whose keys are text, as written, and unique in a mapping; 5e-5 is a number, as in YAML 1.2."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        for each in _nodes(node, set()):
            if isinstance(each, yaml.MappingNode):
                _take_keys_as_text(each)
            elif isinstance(each, yaml.ScalarNode) and not each.tag.endswith(":str"):
                _require_short(each, "a number")
        return node


def _nodes(node: Any, seen: set[yaml.Node]) -> Iterator[yaml.Node]:
    """Yield a node and all below it but keys, each once, however many aliases it has."""
    if node is None or node in seen:
        return
    seen.add(node)
    yield node
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            yield from _nodes(child[1] if isinstance(node, yaml.MappingNode) else child, seen)


def _take_keys_as_text(mapping: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error("a key must be text", key.start_mark)
        _require_short(key, "a key")
        if key.value in seen:
            raise _error(f"the key {key.value!r} is there twice in one mapping; keep one", key.start_mark)
        seen.add(key.value)
        if key.tag != "tag:yaml.org,2002:merge":
            key.tag = "tag:yaml.org,2002:str"


def _require_short(scalar: yaml.ScalarNode, what: str) -> None:
    if len(scalar.value) > MOST_CHARACTERS:
        raise _error(f"{what} of {len(scalar.value)} characters, and {MOST_CHARACTERS} are enough", scalar.start_mark)


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])


def read_yaml(path: Path) -> Any:
    """Read a params file as plain values. Raises UserError: the file, and the line and column of what is wrong."""
    try:
        text = read_plain(path, MOST_BYTES).decode()
        require_bounded(text, MOST_VALUES)
        return yaml.load(text, _Loader)
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


def require_bounded(text: str, most: int) -> None:
    """Raise YAMLError where a text has tags, too deep values, or more than `most` of them with aliases written out."""
    sizes: dict[str | None, int] = {}  # of what has an anchor, by its name
    opened: list[tuple[str | None, int]] = [(None, 0)]  # anchor and values so far: of the file, of each open collection
    for number, event in enumerate(yaml.parse(text, yaml.CSafeLoader)):
        _require_plain(event, [anchor for anchor, _ in opened])
        match event:
            case yaml.CollectionStartEvent():
                opened.append((event.anchor, 1))
                continue
            case yaml.CollectionEndEvent():
                anchor, size = opened.pop()
            case yaml.ScalarEvent():
                anchor, size = event.anchor, 1 + len(event.value) // LINE
            case yaml.AliasEvent():
                anchor, size = None, sizes.get(event.anchor, 1)
            case _:
                continue
        sizes[anchor] = size
        opened[-1] = (opened[-1][0], opened[-1][1] + size)
        if max(number, opened[-1][1]) > most:
            raise _error(f"more than {most} values, with its aliases written out", event.start_mark)


def _require_plain(event: yaml.Event, opened: list[str | None]) -> None:
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        raise _error(f"the tag {event.tag!r} asks for another type; write plain values", event.start_mark)
    if len(opened) > MOST_DEPTH + 1:
        raise _error(f"nested more than {MOST_DEPTH} deep", event.start_mark)
    if isinstance(event, yaml.AliasEvent) and event.anchor in opened:
        raise _error(f"*{event.anchor} stands within &{event.anchor}", event.start_mark)
