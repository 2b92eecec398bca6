"""What a stage requires of the results that it goes on from: that they are what their names and today's params say."""

from pathlib import Path
from typing import Any

from us3l.pipeline.identity import differences
from us3l.utils.errors import UserError


def require_place(path: Path, recorded: dict[str, Any], rerun_hint: str, **place: Any) -> None:
    """Raise UserError where a result is not what its name says, such as its seed; `rerun_hint` is what makes it.

    place: what its name says, by the keys of records.
    """
    for key, asked in place.items():
        if recorded.get(key) != asked:
            holds = f"holds {key} {recorded.get(key)}, and by its name {key} {asked}"
            raise UserError(f"{path}: {holds}: {rerun_hint} again")


def require_params(path: Path, recorded: dict[str, Any], stage_params: dict[str, Any], rerun_hint: str) -> None:
    """Raise UserError where a result was made with other params than those of today; `rerun_hint` is what makes it."""
    for key, was, now in differences(recorded.get("params", {}), stage_params):
        today = "the module is" if key.startswith("code.") else "params.yaml says"
        raise UserError(f"{path}: made with {key} = {was}, but {today} {now}: {rerun_hint} again, or undo the edit")


def require_data(path: Path, recorded: dict[str, Any], data: str, rerun_hint: str) -> None:
    """Raise UserError where a result was made from other images than those prepared now."""
    if recorded.get("data") != data:
        raise UserError(f"{path}: made from other images than those prepared now: {rerun_hint} again")
