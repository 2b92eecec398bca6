"""Runs an exported folder as a stranger would, in a process of its own, where us3l cannot be imported.

`python run_exported.py FOLDER IMAGES.npy OUTPUTS.npz THREADS` writes the outputs of each format, or its error.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Path, np.ndarray], np.ndarray]


def run_model_file(folder: Path, images: np.ndarray) -> np.ndarray:
    """Build the network by model.py, and read model.safetensors."""
    import torch

    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec and spec.loader
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    with torch.no_grad():
        return model.load()(torch.from_numpy(images)).numpy()


def run_pt2(folder: Path, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return torch.export.load(folder / "model.pt2").module()(torch.from_numpy(images)).numpy()


def run_onnx(folder: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


RUNS: dict[str, Run] = {"safetensors": run_model_file, "onnx": run_onnx, "pt2": run_pt2}


def main(folder: Path, images_file: Path, outputs_file: Path, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    images, found = np.load(images_file), dict[str, Any]()
    for name, run in RUNS.items():
        if (folder / f"model.{name}").is_file():
            try:
                found[name] = run(folder, images)
            except Exception as error:
                found[f"{name} error"] = np.array(" ".join(f"{type(error).__name__}: {error}".split()))
    np.savez(outputs_file, **found)


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # lest model.py leaves a __pycache__ in the folder
    sys.modules["us3l"] = None  # type: ignore[assignment]  # importing it fails from here on
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
