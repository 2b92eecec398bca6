"""Weights on disk: safetensors, with what they are in the metadata; nothing is unpickled."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from us3l.errors import UserError
from us3l.files import replacing


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors by name and a JSON record about them, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, {"us3l": json.dumps(about)})


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
        raise UserError(f"{path}: no such file")
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
        made, asked = flatten(about.get("recipe", {})), flatten(recipe)
        key = next(key for key in sorted(made.keys() | asked.keys()) if made.get(key) != asked.get(key))
        raise UserError(
            f"{path}: made with {key} = {made.get(key)}, but params.yaml says {asked.get(key)}: "
            "pretrain again, or undo the edit"
        )
    if about.get("data") != data:
        raise UserError(f"{path}: made from other images than those prepared now: pretrain again")


def flatten(record: Any, prefix: str = "") -> dict[str, Any]:
    """Nested records as one, with dotted keys."""
    if not isinstance(record, dict) or not record:
        return {prefix: record}
    return {
        key: value
        for name, inner in record.items()
        for key, value in flatten(inner, f"{prefix}.{name}" if prefix else name).items()
    }
