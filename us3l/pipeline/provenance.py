"""Provenance of a result: its identity and its circumstances, which are machine, versions and commit."""

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from us3l.pipeline.identity import Identity, fingerprint

if TYPE_CHECKING:
    import torch

_PACKAGES = ("us3l", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


def record(identity: Identity, device: "torch.device | None", seconds: float, processes: int = 1) -> dict[str, Any]:
    """Return `identity` with its fingerprint, and the circumstances, which do not determine the result.

    `device` is None for what needs no PyTorch; each of the processes computed for `seconds` of wall-clock time.
    """
    return {
        "fingerprint": fingerprint(identity),
        **identity,
        "seconds": round(seconds, 3),
        "gpu_hours": processes * seconds / 3600 if device and device.type == "cuda" else 0.0,
        "processes": processes,
        **circumstances(identity, device),
    }


def circumstances(identity: Identity, device: "torch.device | None") -> dict[str, Any]:
    """Return when, on what and from which commit a result is made now."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(device),
        "versions": versions(),
        "git": _git(name for name in identity.get("code", {}) if name.partition(".")[0] != "us3l"),
    }


def hardware(device: "torch.device | None") -> dict[str, Any]:
    """Describe the hardware, as far as a result's bits may depend on it."""
    found: dict[str, Any] = {"machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count()}
    if device:
        import torch

        found |= {"device": device.type, "threads": torch.get_num_threads()}
        if device.type == "cuda":
            found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(modules: Iterable[str]) -> dict[str, Any] | None:
    """Return the current commit and whether code or params differ from it; None outside a repository.

    modules: the names of a custom network's modules.
    """
    own = [f"{name.replace('.', '/')}{suffix}" for name in modules for suffix in (".py", "/__init__.py")]
    try:
        command = ["git", "rev-parse", "--verify", "HEAD"]
        commit = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
        places = ["params.yaml", "studies", "us3l", "Snakefile", "workflow", *own]
        command = ["git", "status", "--porcelain", "--", *places]
        changes = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def describe_commit(git: Any) -> str:
    """Name the commit in a record, and say whether code or params differed from it; empty outside a repository."""
    return f"{git['commit'][:10]}{' with changes' if git['dirty'] else ''}" if git else ""
