"""Records and their seals: a file of ours holds the SHA-256 of its content, so that a later change is detected.

Nothing here needs PyTorch.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError

CHANGED = "damaged: it was changed after it was written; take it back with `dvc checkout` or git, or delete it"


class Entries(dict[str, Any]):
    """A mapping in a record at `path`. Where it lacks an entry, another version of this project wrote it: UserError."""

    def __init__(self, content: dict[str, Any], path: Path) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        what = f"has no entry {key}: another version of us3l wrote it"
        raise UserError(f"{self.path}: {what}; make it again, with --force where it is up to date")


def _entries(text: str, path: Path) -> Any:
    return json.loads(text, object_hook=lambda content: Entries(content, path))


def seal_of_record(record: Any) -> str:
    """Return the SHA-256 of a JSON value in hexadecimal digits, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def seal_of_weights(content: bytes, about: dict[str, Any]) -> str:
    """Return the SHA-256 of the tensors in a safetensors file and of the record about them."""
    header, data = _split(content)
    header.pop("__metadata__", None)
    digest = hashlib.sha256(json.dumps([about, header], sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def read_result(path: Path) -> bytes:
    """Read the bytes of a file that a stage makes. Raises UserError where it is missing or not readable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the stage before this one makes it, as `us3l plan` shows") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None


def read_weights(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read the bytes of a safetensors file that we wrote, and the record about it with its `seal`.

    Raises UserError where it is missing, not one of ours, or not as it was written.
    """
    content = read_result(path)
    try:
        metadata = _split(content)[0].get("__metadata__", {})
    except (ValueError, AttributeError):
        raise UserError(f"{path}: not a whole safetensors file; {CHANGED}") from None
    if "us3l" not in (metadata or {}):
        raise UserError(f"{path}: holds no us3l record; give a file that `us3l pretrain` or `us3l calibrate` wrote")
    try:
        about = _entries(metadata["us3l"], path)
        sealed = about.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: {CHANGED}") from None
    if seal_of_weights(content, about) != sealed:
        raise UserError(f"{path}: {CHANGED}")
    about["seal"] = sealed
    return content, about


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a safetensors file, and its data."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), memoryview(content)[start:]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record with its seal as indented JSON, atomically. Raises UserError where it cannot be written."""
    plain = json.loads(json.dumps(record))  # tuples become lists, as after reading
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**plain, "seal": seal_of_record(plain)}, indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote, with its `seal`. Raises UserError where it is missing or was changed."""
    content = read_result(path)
    try:
        record = _entries(content.decode(), path)
        sealed = record.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a whole record; {CHANGED}") from None
    if seal_of_record(record) != sealed:
        raise UserError(f"{path}: {CHANGED}")
    record["seal"] = sealed
    return record
