"""The identity of a result: all that determines it. Results with the same identity are equal."""

from typing import Any

from us3l.pipeline.code import code
from us3l.utils.records import seal_of_record

Identity = dict[str, Any]


def fingerprint(identity: Any) -> str:
    """Return 16 hexadecimal digits that change when anything in a JSON-able value does."""
    return seal_of_record(identity)[:16]


def identify(stage: str, params: dict[str, Any], **origin: Any) -> Identity:
    """Return the identity of a stage's result: its params and code, and `origin`: seed, width, seals of its inputs."""
    return {"stage": stage, "params": params, "code": code(stage), **origin}


def differences(made: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return the dotted keys at which two nested records differ, each with both values."""
    if not (isinstance(made, dict) and isinstance(now, dict)):
        return [] if made == now else [(key, made, now)]
    return [
        each
        for name in sorted(made.keys() | now.keys())
        for each in differences(made.get(name, "absent"), now.get(name, "absent"), f"{key}.{name}" if key else name)
    ]
