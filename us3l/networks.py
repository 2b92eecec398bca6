"""Plain narrow networks on disk: what is evaluated and what is shipped. They load without the slimmable network."""

from pathlib import Path
from typing import Any

from torch import nn

from us3l import checkpoint
from us3l.data.store import Store
from us3l.errors import UserError
from us3l.models import backbone
from us3l.plan import RunPlan
from us3l.provenance import require_params, require_place, require_recipe


def save_network(
    path: Path, network: nn.Module, name: str, width: float, in_channels: int, about: dict[str, Any]
) -> str:
    """Write weights, BatchNorm statistics and, in the metadata, the architecture; the file's seal."""
    architecture = {"backbone": name, "width": width, "in_channels": in_channels}
    return checkpoint.save(path, network.state_dict(), {**about, "architecture": architecture})


def load_network(path: Path | str) -> nn.Module:
    """The backbone in evaluation mode: normalized images [B, C, H, W] to features [B, F].

    Raises UserError where the file is not a whole network of ours.
    """
    return open_network(Path(path))[0]


def open_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """What `load_network` gives, and the record of what the network came from."""
    tensors, about = checkpoint.load(path)
    if "architecture" not in about:
        raise UserError(f"{path}: not a narrow network; `us3l calibrate` writes those")
    try:
        name, width, channels = (about["architecture"][key] for key in ("backbone", "width", "in_channels"))
        network = backbone(name, width, channels)
    except (KeyError, TypeError, ValueError, RuntimeError):
        what = f"there is no such architecture here: {about['architecture']}"
        raise UserError(f"{path}: {what}; take the version of us3l that wrote the file, or calibrate again") from None
    checkpoint.require_shapes(path, tensors, network.state_dict(), name, width)
    network.load_state_dict(tensors)
    return network.eval(), about


def networks_to_evaluate(plan: RunPlan, seed: int, store: Store) -> list[tuple[nn.Module, dict[str, str]]]:
    """The network of each width of a run, in evaluation mode, with the seals of all that its evaluation comes from.

    Raises UserError where one is of another seed or width than its name says, was made by another recipe than today's,
    or sees images of other channels.
    """
    return [_to_evaluate(plan, seed, width, store) for width in plan.widths]


def _to_evaluate(plan: RunPlan, seed: int, width: float, store: Store) -> tuple[nn.Module, dict[str, str]]:
    path, maker = plan.network(seed, width), plan.maker("calibrate")
    network, about = open_network(path)
    require_place(path, about, "calibrate", seed=seed, width=width)
    if maker.data is plan.data:
        require_recipe(path, about, maker.recipe("calibrate"), store.sha256, "calibrate")
    else:
        require_params(path, about, maker.recipe("calibrate"), "calibrate")
    sees, there = about["architecture"]["in_channels"], store.channels
    if sees != there:
        raise UserError(f"{path}: sees images of {sees} channels, and those of {plan.data.name} have {there}")
    return network, {"data": store.sha256, "checkpoint": about["checkpoint"], "network": about["seal"]}
