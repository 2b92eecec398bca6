"""Weights on disk: safetensors, with what they are in the metadata; nothing is unpickled."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from us3l.errors import UserError
from us3l.files import replacing


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors by name and a JSON record about them, atomically. Raises UserError when the disk is full."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(serialize(contiguous, {"us3l": json.dumps(about)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote. Raises UserError where the file is absent, damaged or not one of ours."""
    about = read_about(path)
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118


def read_about(path: Path) -> dict[str, Any]:
    """The record alone, without reading the tensors. Raises UserError as `load` does."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if "us3l" not in metadata:
        raise UserError(f"{path}: holds no us3l record; give a file that `us3l pretrain` or `us3l calibrate` wrote")
    return json.loads(metadata["us3l"])


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; the stage before this one makes it, as `us3l plan` shows")
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); make it again") from None


def require_shapes(
    path: Path, found: dict[str, Tensor], expected: dict[str, Tensor], backbone: str, width: float
) -> None:
    """Raise UserError where the tensors are not those of the architecture, naming the first that differs."""
    for name in sorted(expected.keys() | found.keys()):
        shapes = [tuple(each[name].shape) if name in each else "absent" for each in (found, expected)]
        if shapes[0] != shapes[1]:
            what = f"{name} is {shapes[0]} here and {shapes[1]} in a {backbone} of width {width}"
            raise UserError(f"{path}: {what}: the checkpoint is of another architecture")


def require_recipe(path: Path, about: dict[str, Any], recipe: dict[str, Any], data: str) -> None:
    """Raise UserError where a checkpoint was made by another recipe or from other data than params.yaml says now."""
    if about.get("recipe") != recipe:
        key, made, asked = _first_difference(about.get("recipe", {}), recipe)
        raise UserError(
            f"{path}: made with {key} = {made}, but params.yaml says {asked}: pretrain again, or undo the edit"
        )
    if about.get("data") != data:
        raise UserError(f"{path}: made from other images than those prepared now: pretrain again")


def _first_difference(made: Any, asked: Any, key: str = "") -> tuple[str, Any, Any]:
    """The dotted key of the first entry that differs between two nested records, and its two values."""
    if isinstance(made, dict) and isinstance(asked, dict):
        for name in sorted(made.keys() | asked.keys()):
            values = made.get(name, "absent"), asked.get(name, "absent")
            if values[0] != values[1]:
                return _first_difference(*values, f"{key}.{name}" if key else name)
    return key, made, asked
