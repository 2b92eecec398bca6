"""What a result came from: recipe, code, data, machine, versions, commit."""

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from us3l.pipeline.code import code
from us3l.utils.errors import UserError
from us3l.utils.records import seal_of_record

if TYPE_CHECKING:
    import torch

_PACKAGES = ("us3l", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


def fingerprint(identity: Any) -> str:
    """16 hexadecimal digits that change when anything in a JSON-able value does."""
    return seal_of_record(identity)[:16]


def identify(stage: str, recipe: dict[str, Any], **origin: Any) -> dict[str, Any]:
    """All that determines a result: its stage's params and code, and `origin`: seed, width, seals of the inputs."""
    return {"stage": stage, "recipe": recipe, "code": code(stage), **origin}


def record(
    identity: dict[str, Any], device: "torch.device | None", seconds: float, processes: int = 1
) -> dict[str, Any]:
    """`identity` with its fingerprint, and the circumstances, which do not determine the result.

    `device` is None for what needs no PyTorch; `seconds` of wall clock were computed in each of the processes.
    """
    return {
        "fingerprint": fingerprint(identity),
        **identity,
        "seconds": round(seconds, 3),
        "gpu_hours": processes * seconds / 3600 if device and device.type == "cuda" else 0.0,
        "processes": processes,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(device),
        "versions": versions(),
        "git": _git(identity.get("recipe", {}).get("code", {})),
    }


def differences(made: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """The dotted keys at which two nested records differ, each with both values."""
    if not (isinstance(made, dict) and isinstance(now, dict)):
        return [] if made == now else [(key, made, now)]
    return [
        each
        for name in sorted(made.keys() | now.keys())
        for each in differences(made.get(name, "absent"), now.get(name, "absent"), f"{key}.{name}" if key else name)
    ]


def require_place(path: Path, made: dict[str, Any], again: str, **place: Any) -> None:
    """Raise UserError where a result is not what its name says, such as its seed; `again` is what makes it.

    place: what its name says, by the keys of records.
    """
    for key, asked in place.items():
        if made.get(key) != asked:
            raise UserError(f"{path}: holds {key} {made.get(key)}, and by its name {key} {asked}: {again} again")


def require_params(path: Path, made: dict[str, Any], recipe: dict[str, Any], again: str) -> None:
    """Raise UserError where a result was made with other params than there are now; `again` is what makes it."""
    for key, was, now in differences(made.get("recipe", {}), recipe):
        today = "the module is" if key.startswith("code.") else "params.yaml says"
        raise UserError(f"{path}: made with {key} = {was}, but {today} {now}: {again} again, or undo the edit")


def require_recipe(path: Path, made: dict[str, Any], recipe: dict[str, Any], data: str, again: str) -> None:
    """Raise UserError where a result was made by another recipe, or from other images, than are there now.

    `again` is the stage that makes it.
    """
    require_params(path, made, recipe, again)
    if made.get("data") != data:
        raise UserError(f"{path}: made from other images than those prepared now: {again} again")


def hardware(device: "torch.device | None") -> dict[str, Any]:
    """What a computation runs on, as far as its bits may depend on it."""
    found: dict[str, Any] = {"machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count()}
    if device:
        import torch

        found |= {"device": device.type, "threads": torch.get_num_threads()}
        if device.type == "cuda":
            found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def versions() -> dict[str, str]:
    """Python and the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(modules: Iterable[str]) -> dict[str, Any] | None:
    """The commit of the current directory and whether code or params differ from it; None outside a repository.

    modules: those of a user's own network.
    """
    own = [f"{name.replace('.', '/')}{suffix}" for name in modules for suffix in (".py", "/__init__.py")]
    try:
        command = ["git", "rev-parse", "--verify", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        places = ["params.yaml", "studies", "us3l", "Snakefile", "workflow", *own]
        command = ["git", "status", "--porcelain", "--", *places]
        changes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}
