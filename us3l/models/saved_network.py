"""Plain narrow networks on disk, to be evaluated and shipped. They load without the slimmable network."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.meta import on_meta_device
from us3l.utils import checkpoint
from us3l.utils.errors import UserError, shown


def save_network(
    path: Path, network: nn.Module, name: str, width: float, in_channels: int, about: dict[str, Any]
) -> str:
    """Write weights, BatchNorm statistics and, in the metadata, the architecture; return the file's seal."""
    architecture = {"backbone": name, "width": width, "in_channels": in_channels}
    return checkpoint.save(path, network.state_dict(), {**about, "architecture": architecture})


def open_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load a backbone in evaluation mode, normalized images [B, C, H, W] to features [B, F], and its record.

    Raises UserError where the file is not a complete network that us3l wrote.
    """
    tensors, about = checkpoint.load(path)
    if "architecture" not in about:
        raise UserError(f"{path}: not a narrow network; `us3l calibrate` writes those")
    try:
        name, width, channels = (about["architecture"][key] for key in ("backbone", "width", "in_channels"))
        backbone = Backbone(name, channels)
        expected = on_meta_device(partial(backbone.build, width)).state_dict()  # takes no memory, whatever the width
    except (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError):
        what = f"there is no such architecture here: {shown(about['architecture'])}"
        raise UserError(f"{path}: {what}; take the version of us3l that wrote the file, or calibrate again") from None
    checkpoint.require_shapes(path, tensors, expected, name, width)
    network = backbone.build(width)
    network.load_state_dict(tensors)
    return network.eval(), about


def add_backbone_prefix(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a backbone's parameters by their names in a checkpoint."""
    return {f"backbone.{name}": value for name, value in parameters.items()}


def backbone_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the backbone's weights of a checkpoint, by their names in the backbone."""
    return {name.removeprefix("backbone."): each for name, each in weights.items() if name.startswith("backbone.")}
