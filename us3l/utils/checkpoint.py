"""Weights on disk: safetensors with a JSON record about them in the metadata; nothing is unpickled.

The same tensors and the same record give the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError
from us3l.utils.records import CHANGED, read_weights, seal_of_weights


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    """Write tensors by name and a JSON record about them, atomically; return the file's seal.

    Raises UserError where the file cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    plain = json.loads(json.dumps(about))  # tuples become lists, as after reading
    seal = seal_of_weights(serialize(contiguous), plain)
    with atomic_write(path) as temporary:
        temporary.write_bytes(serialize(contiguous, {"us3l": json.dumps({**plain, "seal": seal})}))
    return seal


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote: tensors, and the record with its `seal`.

    Raises UserError where the file is missing, not one of ours, or not as it was written.
    """
    content, about = read_weights(path)
    try:
        return deserialize(content), about
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); {CHANGED}") from None


def require_shapes(
    path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], backbone: str, width: float
) -> None:
    """Raise UserError where the tensors are not those of the architecture, naming the first that differs."""
    for name in sorted(expected.keys() | found.keys()):
        shapes = [tuple(each[name].shape) if name in each else "absent" for each in (found, expected)]
        if shapes[0] != shapes[1]:
            what = f"{name} is {shapes[0]} here and {shapes[1]} in a {backbone} of width {width}"
            raise UserError(f"{path}: {what}: the checkpoint is of another architecture")
