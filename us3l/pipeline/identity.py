"""The identity of a result: all that determines it. Results with the same identity are equal."""

from typing import Any

from us3l.utils.records import seal_of_record

Identity = dict[str, Any]


def fingerprint(identity: Any) -> str:
    """Return 16 hexadecimal digits that change when anything in a JSON-able value does."""
    return seal_of_record(identity)[:16]


def differences(made: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Return the dotted keys at which two nested records differ, each with both values."""
    if not (isinstance(made, dict) and isinstance(now, dict)):
        return [] if made == now else [(key, made, now)]
    return [
        each
        for name in sorted(made.keys() | now.keys())
        for each in differences(made.get(name, "absent"), now.get(name, "absent"), f"{key}.{name}" if key else name)
    ]
