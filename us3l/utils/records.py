"""Records and their seals: a file of ours holds the SHA-256 of its content, so that a later change is detected.

Nothing here needs PyTorch.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError
from us3l.utils.reading import MOST_JSON, open_plain, parse_json, read_all

MOST_BYTES = 2**32  # of weights; the state of a ViT-B that AdamW trains has 1.5 GB
MOST_HEADER = 2**24  # of the names of weights and the record about them; 100 kB for a ResNet-101
BLOCK = 2**20  # bytes that are hashed at a time
MADE_AGAIN = "if a stage wrote it, take it back with `dvc checkout` or make it again"
CHANGED = "damaged: it was changed after it was written; take it back with `dvc checkout` or git, or delete it"


class Entries(dict[str, Any]):
    """A mapping in a record at `path`. Where it lacks an entry, another version of this project wrote it: UserError."""

    def __init__(self, content: list[tuple[str, Any]], path: Path) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        what = f"has no entry {key}: another version of us3l wrote it"
        raise UserError(f"{self.path}: {what}; make it again, with --force where it is up to date")


def _entries(content: bytes, path: Path) -> Any:
    return parse_json(content, lambda pairs: Entries(pairs, path))


def seal_of_record(record: Any) -> str:
    """Return the SHA-256 of a JSON value in hexadecimal digits, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def seal_of_weights(content: bytes, about: dict[str, Any]) -> str:
    """Return the SHA-256 of the tensors in a safetensors file and of the record about them."""
    return _seal_of_weights(BytesIO(content), about)


def _seal_of_weights(file: BufferedIOBase, about: dict[str, Any]) -> str:
    header = read_header(file)
    header.pop("__metadata__", None)
    digest = hashlib.sha256(json.dumps([about, header], sort_keys=True).encode())
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def open_result(path: Path, most: int) -> Iterator[BufferedReader]:
    """Open a file of at most `most` bytes that a stage makes. Raises UserError where it is missing or not readable."""
    try:
        with open_plain(path, most) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the stage before this one makes it, as `us3l plan` shows") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None


def read_weights(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read the bytes of a safetensors file that we wrote, and the record about it with its `seal`.

    Raises UserError where it is missing, not one of ours, or not as it was written.
    """
    with open_result(path, MOST_BYTES) as file:
        try:
            metadata = read_header(file).get("__metadata__", {})
        except (ValueError, AttributeError):
            raise UserError(f"{path}: not a whole safetensors file; {MADE_AGAIN}") from None
        if not isinstance(metadata, dict) or "us3l" not in metadata:
            raise UserError(f"{path}: holds no us3l record; give a file that `us3l pretrain` or `us3l calibrate` wrote")
        try:
            about = _entries(metadata["us3l"].encode(), path)
            sealed = about.pop("seal")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: {CHANGED}") from None
        if _seal_of_weights(file, about) != sealed:
            raise UserError(f"{path}: {CHANGED}")
        file.seek(0)
        about["seal"] = sealed
        return read_all(file), about


def read_header(file: BufferedIOBase, as_mapping: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read the header at the beginning of a safetensors file, its mappings as `parse_json` does.

    Raises ValueError where it is none.
    """
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    if size > MOST_HEADER:
        raise ValueError(f"a header of {size} bytes")
    return parse_json(file.read(size), as_mapping)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record with its seal as indented JSON, atomically. Raises UserError where it cannot be written."""
    plain = json.loads(json.dumps(record))  # tuples become lists, as after reading
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**plain, "seal": seal_of_record(plain)}, indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote, with its `seal`. Raises UserError where it is missing or was changed."""
    with open_result(path, MOST_JSON) as file:
        content = read_all(file)
    try:
        record = _entries(content, path)
        sealed = record.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a whole record; {CHANGED}") from None
    if seal_of_record(record) != sealed:
        raise UserError(f"{path}: {CHANGED}")
    record["seal"] = sealed
    return record
