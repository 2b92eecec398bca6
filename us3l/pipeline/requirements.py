"""Requirements on the results that a stage starts from: they must match their file names and the current params."""

from pathlib import Path
from typing import Any

from us3l.pipeline.identity import differences
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.requalification import requalification
from us3l.utils.errors import UserError
from us3l.utils.records import read_record


def require_place(path: Path, recorded: dict[str, Any], rerun_hint: str, **place: Any) -> None:
    """Raise UserError where a result does not match its file name; `rerun_hint` is the command that makes it again.

    place: what the name says, such as the seed, by the keys of records.
    """
    for key, asked in place.items():
        if recorded.get(key) != asked:
            holds = f"holds {key} {recorded.get(key)}, and by its name {key} {asked}"
            raise UserError(f"{path}: {holds}: {rerun_hint} again")


def require_params(path: Path, recorded: dict[str, Any], stage_params: dict[str, Any], rerun_hint: str) -> None:
    """Raise UserError where a result was made with other params than the current ones; see `require_place`."""
    for key, was, now in differences(recorded.get("params", {}), stage_params):
        raise UserError(
            f"{path}: made with {key} = {was}, but params.yaml says {now}: {rerun_hint} again, or undo the edit"
        )


def require_network(producer: RunStage) -> None:
    """Raise UserError where a custom network has changed since a result was made, without a requalification."""
    modules = producer.network_code
    made = read_record(producer.record)["code"] if modules else {}
    for module, now in modules.items():
        if made.get(module) != now and not requalification(producer):
            what = f"made with code.{module} = {made.get(module)}, but the module is {now}"
            raise UserError(f"{producer.record}: {what}: run `us3l {producer.command}` again, or undo the edit")


def require_data(path: Path, recorded: dict[str, Any], data: str, rerun_hint: str) -> None:
    """Raise UserError where a result was made from other images than those prepared now; see `require_place`."""
    if recorded.get("data") != data:
        raise UserError(f"{path}: made from other images than those prepared now: {rerun_hint} again")
