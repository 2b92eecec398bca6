"""The GPUs that this machine offers, told without PyTorch."""

import os
from pathlib import Path


def visible_gpus() -> list[str]:
    """Names of the devices: those in CUDA_VISIBLE_DEVICES where it is set, else all that the driver shows."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
