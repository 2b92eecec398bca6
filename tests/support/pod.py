"""The container of the study's pod: what it runs, from the Containerfile and the manifest."""

import json
import re
from typing import Any

import yaml
from project import ROOT

MANIFESTS = sorted((ROOT / "kubernetes").glob("*.yaml"))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8"))


def pod(manifest: Any) -> Any:
    """The spec of a pod: of the manifest of one, or of a job."""
    return manifest["spec"]["template"]["spec"] if manifest["kind"] == "Job" else manifest["spec"]


def instruction(name: str) -> str:
    """What follows an instruction of the Containerfile that stands there once."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    [found] = re.findall(rf"^{name} (.+)$", text, re.MULTILINE)
    return found


def targets() -> list[str]:
    """The files that the study's pod makes."""
    arguments = _arguments()
    return arguments[arguments.index("--") + 1 :]


def command(target: str, **granted: int) -> list[str]:
    """The command line of the study's container for another target, with what the pod was granted."""
    arguments = _arguments()
    before = arguments[: arguments.index("--")]
    filled = [re.sub(r"\$\((\w+)\)", lambda match: str(granted[match[1]]), each) for each in before]
    return [*json.loads(instruction("ENTRYPOINT")), *filled, "--", target]


def _arguments() -> list[str]:
    [container] = pod(read("study"))["containers"]
    return container["args"]
