"""Export: a network as a folder that runs without this package, each of whose files has been run and compared."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from us3l.deployment import run_exported
from us3l.deployment.card import model_card
from us3l.deployment.formats import FORMATS
from us3l.deployment.model_file import copied_modules, model_file
from us3l.deployment.network import Network
from us3l.utils.errors import UserError
from us3l.utils.source import files_of_network

LARGEST_DIFFERENCE = {"safetensors": 0.0, "pt2": 0.0, "onnx": 1e-5}  # between outputs, relative to the largest output


@dataclass(frozen=True)
class Compared:
    """How the outputs of an exported file compare with those of the network that was exported.

    difference: the largest, relative to the largest output; problem: why the file does not hold, empty where it does.
    """

    file: str
    bytes: int
    difference: float | None
    problem: str


def export(network: Network, folder: Path, formats: Sequence[str], images: Tensor) -> list[Compared]:
    """Write a network to a folder, run each file in a process without us3l, and remove what does not hold.

    images: [n, C, H, W], real ones, in [0, 1]. The folder appears once all is compared. Nothing stays where no format
    holds.
    Raises UserError where the folder holds something else, a format is unknown or its package is missing, or PyTorch
    cannot build the network by model.py.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--formats: there is no format {name!r}; there is {', '.join(FORMATS)}")
    require_free(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        _write(network, temporary, ["safetensors", *formats], images[0])
        compared = _compare(network, temporary, images)
        _finish(network, temporary, compared, images[:1])
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: not writable: {error.strerror}; give --out a folder to write in") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return compared


def require_free(folder: Path) -> None:
    """Raise UserError where a folder holds anything but an earlier export."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or not ((folder / "model.py").is_file() or not any(folder.iterdir())):
        raise UserError(f"{folder}: holds something else than an export; give --out another folder, or remove it")


def _write(network: Network, folder: Path, formats: Iterable[str], example: Tensor) -> None:
    architecture = network.config.architecture
    copied_modules(files_of_network(architecture), folder)
    (folder / "model.py").write_text(model_file(network.config, num_features(network, example)), encoding="utf-8")
    for name in dict.fromkeys(formats):
        FORMATS[name](network, example, folder / f"model.{name}")


@torch.no_grad()
def num_features(network: Network, example: Tensor) -> int:
    """Count the features of an image [C, H, W]."""
    if network.classifier is not None:
        return network.classifier.in_features
    return network(torch.stack([example, example])).shape[1]


@torch.no_grad()
def _compare(network: Network, folder: Path, images: Tensor) -> list[Compared]:
    """Run what was written, and remove what gives other outputs."""
    expected = network(images).numpy()
    outputs = _outputs(folder, images.numpy())
    compared = []
    for name in FORMATS:
        path = folder / f"model.{name}"
        if path.is_file():
            size, (difference, problem) = path.stat().st_size, _difference(name, outputs, expected)
            compared.append(Compared(path.name, size, difference, problem))
            if problem:
                path.unlink()
    if compared[0].problem:
        what = f"model.py does not build this network: {compared[0].problem}"
        raise UserError(f"{network.config.architecture} at width {network.config.width:g}: {what}")
    return compared


def _outputs(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of each format's file, or its error, from a process that cannot import us3l."""
    with tempfile.TemporaryDirectory() as exchange:
        images_file, outputs_file = Path(exchange, "images.npy"), Path(exchange, "outputs.npz")
        np.save(images_file, images)
        paths = [os.path.abspath(each) for each in (folder, images_file, outputs_file)]
        command = [sys.executable, "-P", run_exported.__file__, *paths, str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        if done.returncode:
            raise UserError(f"{folder}: the exported files cannot be run: {done.stderr.strip().splitlines()[-1]}")
        with np.load(outputs_file) as found:
            return dict(found)


def _difference(name: str, outputs: dict[str, np.ndarray], expected: np.ndarray) -> tuple[float | None, str]:
    if f"{name} error" in outputs:
        return None, str(outputs[f"{name} error"])
    found = outputs[name]
    if found.shape != expected.shape:
        return None, f"outputs of shape {found.shape} instead of {expected.shape}"
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= LARGEST_DIFFERENCE[name]:
        return difference, f"outputs differ by {difference:.1g}, more than {LARGEST_DIFFERENCE[name]:g}, relatively"
    return difference, ""


def _finish(network: Network, folder: Path, compared: list[Compared], image: Tensor) -> None:
    """Write config.json and the card, which tell of the files that hold."""
    files: dict[str, Any] = {
        each.file: {"bytes": each.bytes, "largest_relative_difference": each.difference}
        for each in compared
        if not each.problem
    }
    config = {**network.config.as_json(), "num_features": num_features(network, image[0]), "files": files}
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(config), encoding="utf-8")
