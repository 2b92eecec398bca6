"""What a result came from: recipe, code, data, machine, versions, commit."""

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("us3l", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


def fingerprint(identity: Any) -> str:
    """16 hexadecimal digits that change when anything in a JSON-able value does."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def record(identity: dict[str, Any], device: str, seconds: float) -> dict[str, Any]:
    """`identity` (all that determines the result) with its fingerprint, and the circumstances (which do not).

    `device` is PyTorch's name of it; `seconds` are wall-clock seconds of computing.
    """
    return {
        "fingerprint": fingerprint(identity),
        **identity,
        "seconds": round(seconds, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": _hardware(device),
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git(),
    }


def _hardware(device: str) -> dict[str, Any]:
    hardware: dict[str, Any] = {"machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count(), "device": device}
    if device.startswith("cuda"):
        import torch

        hardware |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return hardware


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any] | None:
    """The commit of the current directory and whether tracked files differ from it; None outside a repository."""
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        described = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": described.removesuffix("-dirty"), "dirty": described.endswith("-dirty")}
