"""`us3l.load`: a network to run, from an exported folder, a file of a study's results, or a model hub."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from us3l.deployment.config import Config, read_config
from us3l.deployment.network import Network
from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import open_network
from us3l.params.dataset import Normalize, TestView
from us3l.params.sampling import width_label
from us3l.utils import checkpoint
from us3l.utils.errors import UserError


def load(source: str | Path, width: float | None = None) -> Network:
    """Load a network in evaluation mode; nothing is folded or changed.

    source: a folder that `us3l export` wrote; `results/STUDY/networks/RUN/seedN-wM.safetensors`; a checkpoint,
    `results/STUDY/checkpoints/RUN/seedN.safetensors`, with the width of a network that was calibrated for it; or, where
    there is no such path and huggingface_hub is installed, a repository of the hub, `OWNER/NAME`. Where the study keeps
    a classifier for the width, it is part of the network.
    Raises UserError where there is no network, or none of this width.
    """
    path = Path(source)
    if not path.exists():
        path = _from_hub(str(source))
    if width is not None and _is_checkpoint(path):
        path = _calibrated(path, width)
    network = load_folder(path) if path.is_dir() else load_result(path)
    if width not in (None, network.config.width):
        what = f"is of width {network.config.width:g}, not {width:g}"
        raise UserError(f"{source}: {what}; give a checkpoint, whose networks are of several widths")
    return network


def widths(checkpoint_file: str | Path) -> list[float]:
    """List the widths, widest first, at which `load` finds a calibrated network of a checkpoint."""
    path = Path(checkpoint_file)
    found = _networks_folder(path).glob(f"{path.stem}-w*.safetensors")
    return sorted((open_network(each)[1]["architecture"]["width"] for each in found), reverse=True)


def load_folder(folder: Path) -> Network:
    """Load an exported network. Raises UserError where a file is missing or does not fit the architecture."""
    config, path = read_config(folder), folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable ({' '.join(str(error).split())}); export again") from None
    backbone = Backbone(config.architecture, config.in_channels).build(config.width)
    classifier = {name: tensors.pop(f"fc.{name}") for name in ("weight", "bias") if f"fc.{name}" in tensors}
    checkpoint.require_shapes(path, tensors, backbone.state_dict(), config.architecture, config.width)
    backbone.load_state_dict(tensors)
    return Network(backbone, config, linear(classifier) if classifier else None)


def load_result(path: Path) -> Network:
    """Load a calibrated network of a study, with the classifier that the study keeps for it, if any."""
    backbone, about = open_network(path)
    network = Network(backbone, config_of(about))
    classifier = path.absolute().parents[2] / "classifiers" / path.parent.name / path.name
    return with_classifier(network, about["seal"], classifier) if classifier.is_file() else network


def config_of(about: dict[str, Any]) -> Config:
    """Return the config of a calibrated network, from the record in its file."""
    name, width, channels = (about["architecture"][key] for key in ("backbone", "width", "in_channels"))
    return Config(name, width, channels, Normalize.model_validate(about["params"]["views"]["normalize"]))


def with_classifier(network: Network, seal: str, path: Path) -> Network:
    """Return a calibrated network, whose file has this seal, with the classifier in a file, and what was fine-tuned.

    Raises UserError where the classifier was trained on another network.
    """
    tensors, about = checkpoint.load(path)
    if about["network"] != seal:
        raise UserError(f"{path}: trained on another network than the one beside it; evaluate again")
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "classifier": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    if parts["backbone"]:
        network.backbone.load_state_dict(parts["backbone"])
    views = about["params"]["views"]
    config = replace(
        network.config,
        normalize=Normalize.model_validate(views["normalize"]),
        test_view=TestView.model_validate(views["test"]),
        image=about["image"],
        prepared_size=about["prepared_size"],
        classes=about["classes"],
    )
    return Network(network.backbone, config, linear(parts["classifier"]))


def linear(weights: dict[str, Tensor]) -> nn.Linear:
    """Build a linear layer of these weights: weight [classes, F], bias [classes]."""
    layer = nn.Linear(weights["weight"].shape[1], len(weights["bias"]))
    layer.load_state_dict(weights)
    return layer


def _is_checkpoint(path: Path) -> bool:
    return path.absolute().parent.parent.name == "checkpoints"


def _networks_folder(checkpoint_file: Path) -> Path:
    return checkpoint_file.absolute().parents[2] / "networks" / checkpoint_file.absolute().parent.name


def _calibrated(path: Path, width: float) -> Path:
    """Return the file of a checkpoint's network of a width. Raises UserError where there is none."""
    network = _networks_folder(path) / f"{path.stem}-{width_label(width)}.safetensors"
    if network.is_file():
        return network
    known = ", ".join(f"{each:g}" for each in widths(path)) or "none yet"
    makes = "`us3l export STUDY RUN SEED --width` makes any of the trained range"
    raise UserError(f"{path}: no network of width {width:g} is calibrated, those are {known}; {makes}")


def _from_hub(source: str) -> Path:
    """Download a repository of the Hugging Face hub. Raises UserError where that is not possible."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UserError(f"{source}: no such file or folder; give what `us3l export` or `us3l calibrate` wrote")
    if importlib.util.find_spec("huggingface_hub") is None:
        what = "no such folder, and a model hub's OWNER/NAME needs huggingface_hub: pip install huggingface_hub"
        raise UserError(f"{source}: {what}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(source))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"{source}: not to be had from the hub: {' '.join(str(error).split())}") from None
