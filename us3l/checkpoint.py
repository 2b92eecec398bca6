"""Weights on disk: safetensors, with what they are in the metadata; nothing is unpickled."""

import json
from pathlib import Path
from typing import Any

import torch
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


def plain(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix`, their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def fits(path: Path, tensors: dict[str, Tensor], network: torch.nn.Module, architecture: str) -> None:
    """Raise UserError where the tensors are not those of `network`, naming the first that differs."""
    expected = {name: tuple(value.shape) for name, value in network.named_parameters()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{path}: {name} is {found.get(name, 'absent')} and should be {expected.get(name, 'absent')}: "
                f"the checkpoint is not of a {architecture}"
            )
