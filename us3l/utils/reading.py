"""Reading of files that nobody vouches for: no file keeps a command waiting, fills its memory or overflows its stack.

A reader states the most bytes that its files have; honest ones are far smaller.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINVAL
from io import BufferedReader
from pathlib import Path
from typing import Any

MOST_JSON = 2**26  # bytes
MOST_VALUES = 2_000_000  # in a JSON text: a value takes up to 200 bytes of memory
MOST_DEPTH = 64  # of JSON and YAML: the deepest of ours is 10


@contextmanager
def open_plain(path: Path, most: int) -> Iterator[BufferedReader]:
    """Open a file to read its bytes.

    Raises OSError where it is a pipe, a device or a folder, has more than `most` bytes, or changes within the block.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # closed below
    except UnicodeEncodeError:  # of this locale
        raise
    except ValueError:
        raise OSError(EINVAL, "no name of a file") from None  # it holds a zero byte
    with file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise OSError(EINVAL, "a pipe or a device, and no file")
        if before.st_size > most:
            raise OSError(EINVAL, f"its {before.st_size} bytes are more than the {most} that such a file may have")
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError(EINVAL, "it changed while it was read")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its other end


def read_plain(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes. Raises OSError as `open_plain` does."""
    with open_plain(path, most) as file:
        return read_all(file)


def read_all(file: BufferedReader) -> bytes:
    """Read the bytes of an opened file from where it stands, no more than it has."""
    return file.read(os.fstat(file.fileno()).st_size)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError as `open_plain` does, and ValueError as `parse_json` does."""
    return parse_json(read_plain(path, MOST_JSON))


def parse_json(content: bytes, as_mapping: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse JSON in UTF-8, its mappings as `as_mapping` makes them of their keys and values.

    Raises ValueError where it is none, or has too many values or too deep ones.
    """
    if len(content) > MOST_VALUES and sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES} values")
    try:
        value = json.loads(content.decode(), object_pairs_hook=as_mapping)
        if content.count(b"[") + content.count(b"{") > MOST_DEPTH:
            _require_shallow(value)
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} deep") from None
    return value


def _require_shallow(value: Any) -> None:
    """Raise RecursionError for a JSON value that is nested too deeply. It is looked at level by level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        if not level:
            return
        inner = [each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer)]
        level = [each for each in inner if isinstance(each, dict | list)]
    if level:
        raise RecursionError
