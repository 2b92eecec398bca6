"""Records: sealed JSON files that say what was computed, and from what."""

import json
from pathlib import Path
from typing import Any

from us3l.errors import UserError
from us3l.files import replacing
from us3l.seals import CHANGED, read_result, seal_of_record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record with its seal as indented JSON, atomically. Raises UserError where that cannot be."""
    plain = json.loads(json.dumps(record))  # tuples are lists, as they will be when it is read
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**plain, "seal": seal_of_record(plain)}, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote, `seal` included. Raises UserError where it is absent or not as it was written."""
    content = read_result(path)
    try:
        record = json.loads(content.decode())
        sealed = record.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a whole record; {CHANGED}") from None
    if seal_of_record(record) != sealed:
        raise UserError(f"{path}: {CHANGED}")
    return {**record, "seal": sealed}
