"""Records: sealed JSON files that say what was computed, and from what."""

import json
from pathlib import Path
from typing import Any

from us3l.errors import UserError
from us3l.files import replacing
from us3l.seals import CHANGED, seal_of_record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record with its seal as indented JSON, atomically. Raises UserError when the disk is full."""
    plain = json.loads(json.dumps(record))  # tuples are lists, as they will be when it is read
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**plain, "seal": seal_of_record(plain)}, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote, `seal` included. Raises UserError where it is absent or not as it was written."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        sealed = record.pop("seal")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the stage before this one makes it, as `us3l plan` shows") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a whole record; {CHANGED}") from None
    if seal_of_record(record) != sealed:
        raise UserError(f"{path}: {CHANGED}")
    return {**record, "seal": sealed}
