"""Plain narrow networks on disk: what is evaluated and what is shipped. They load without the slimmable network."""

from pathlib import Path
from typing import Any

from torch import nn

from us3l import checkpoint
from us3l.data.store import Store
from us3l.errors import UserError
from us3l.models import backbone
from us3l.plan import RunPlan
from us3l.provenance import require_params, require_recipe


def save_network(
    path: Path, network: nn.Module, name: str, width: float, in_channels: int, about: dict[str, Any]
) -> str:
    """Write weights, BatchNorm statistics and, in the metadata, the architecture; the file's seal."""
    architecture = {"backbone": name, "width": width, "in_channels": in_channels}
    return checkpoint.save(path, network.state_dict(), {**about, "architecture": architecture})


def load_network(path: Path) -> nn.Module:
    """The backbone in evaluation mode: normalized images [B, C, H, W] to features [B, F].

    Raises UserError where the file is not a whole network of ours.
    """
    return open_network(path)[0]


def open_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """What `load_network` gives, and the record of what the network came from."""
    tensors, about = checkpoint.load(path)
    if "architecture" not in about:
        raise UserError(f"{path}: not a narrow network; `us3l calibrate` writes those")
    architecture = about["architecture"]
    network = backbone(architecture["backbone"], architecture["width"], architecture["in_channels"])
    checkpoint.require_shapes(path, tensors, network.state_dict(), architecture["backbone"], architecture["width"])
    network.load_state_dict(tensors)
    return network.eval(), about


def networks_to_evaluate(plan: RunPlan, seed: int, store: Store) -> list[tuple[nn.Module, dict[str, str]]]:
    """The network of each width of a run, in evaluation mode, with the seals of all that its evaluation comes from.

    Raises UserError where one was made by another recipe than today's, or sees images of other channels.
    """
    return [_to_evaluate(plan, path, store) for path in plan.networks(seed)]


def _to_evaluate(plan: RunPlan, path: Path, store: Store) -> tuple[nn.Module, dict[str, str]]:
    network, about = open_network(path)
    maker = plan.maker("calibrate")
    if maker.data is plan.data:
        require_recipe(path, about, maker.recipe("calibrate"), store.sha256, "calibrate")
    else:
        require_params(path, about, maker.recipe("calibrate"), "calibrate")
    sees, there = about["architecture"]["in_channels"], store.channels
    if sees != there:
        raise UserError(f"{path}: sees images of {sees} channels, and those of {plan.data.name} have {there}")
    return network, {"data": store.sha256, "checkpoint": about["checkpoint"], "network": about["seal"]}
