"""A file that others published: its tensors by name, read without executing anything in it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from us3l.models.torch_file import NoTensors, TorchFile, read_torch_file
from us3l.utils.errors import UserError
from us3l.utils.reading import open_plain

MOST_BYTES = 2**30  # of a file; that of a ResNet-101 with its momentum encoder and optimizer has 0.7 GB


@dataclass(frozen=True)
class Published:
    """The content of a file: the model's tensors by name, its other entries, and its SHA-256."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    entries: dict[str, Any]


def read(path: Path, sha256: str | None = None) -> Published:
    """Read a checkpoint once, and check its SHA-256 where one is given.

    Raises UserError where the file is missing, has another SHA-256, is damaged, asks to run code, or holds no named
    tensors.
    """
    try:
        with open_plain(path, MOST_BYTES) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 not in (None, found):
                what = f"its sha256 is {found}, not {sha256}; take the right file, or correct params.yaml"
                raise UserError(f"{path}: {what}")
            loaded = _load(path, file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a checkpoint") from None
    return Published(path, found, loaded.tensors, loaded.entries)


def _load(path: Path, file: BufferedReader) -> TorchFile:
    try:
        return read_torch_file(file)
    except NoTensors:
        what = "no checkpoint: it must hold tensors by name, alone or under the key state_dict or model"
        raise UserError(f"{path}: {what}") from None
    except ValueError as error:
        if called := re.search(r"asks for (\S+)", str(error)):
            what = f"refused: it asks to run {called[1]}, and a checkpoint may hold tensors and plain values only"
            raise UserError(f"{path}: {what}") from None
        raise UserError(f"{path}: not a whole PyTorch checkpoint ({error}); download or copy it again") from None
