"""Import of the official code's checkpoints: their tensors mapped to a backbone of ours. Nothing in them is executed.

The official workers/ssl.py saves the whole model: the backbone as `encoder_q.`, under `module.` if trained in parallel.
A file may also hold the bare backbone. Every name is accounted for, so that renaming loses no tensor.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.meta import on_meta_device
from us3l.models.saved_network import add_backbone_prefix
from us3l.models.torch_file import NoTensors, TorchFile, read_torch_file
from us3l.utils import checkpoint
from us3l.utils.errors import UserError, in_one_line
from us3l.utils.reading import open_plain

MOST_BYTES = 2**30  # of a file; that of a ResNet-101 with its momentum encoder and optimizer has 0.7 GB
Shapes = dict[str, tuple[int, ...]]
ENCODER = "encoder_q."
LEFT_OUT = {
    "encoder_k.": "momentum encoder",
    "predictor.": "predictor",
    "predictor_new.": "predictor of the distillation",
    "proj_conv.": "projections of the feature distillation",
    "queue": "queue of negatives",
    f"{ENCODER}fc.": "projector or classifier",
}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
IMPORTABLE = [name for name in BUILT_IN if name != "pixels" and not name.startswith("vit-")]
KNOWN_ENTRIES = {"arch", "epoch", "optimizer"}


@dataclass(frozen=True)
class Mapped:
    """A checkpoint's names, sorted: the backbone's tensors, names left out by reason, unknown names, and mismatches."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshaped: dict[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """The record of an import: how many tensors were mapped and left out, and the names left over."""
        left_out = {reason: len(names) for reason, names in self.left_out.items()}
        return {"mapped": len(self.weights), "left_out": left_out, "left_over": self.left_over}


@dataclass(frozen=True)
class OfficialCheckpoint:
    """The content of a file: the model's tensors by name, its other entries, and its SHA-256."""

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    entries: dict[str, Any]


def import_backbone(path: Path, sha256: str, name: str, in_channels: int) -> Mapped:
    """Read the weights of the backbone `name` from a checkpoint with this SHA-256.

    Raises UserError where the file is missing, has another SHA-256, is not safe to read, or does not hold that
    backbone, and for a backbone that cannot be imported.
    """
    expected = expected_shapes(name, in_channels)
    mapped = map_names(read(path, sha256).tensors, expected)
    require_complete(path, mapped, name, in_channels)
    return mapped


def read(path: Path, sha256: str | None = None) -> OfficialCheckpoint:
    """Read a checkpoint once, and check its SHA-256 where one is given.

    Raises UserError where the file is missing, has another SHA-256, is damaged, asks to run code, or holds no named
    tensors.
    """
    try:
        with open_plain(path, MOST_BYTES) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 not in (None, found):
                what = f"its sha256 is {found}, not {sha256}; take the right file, or correct params.yaml"
                raise UserError(f"{path}: {what}")
            loaded = _load(path, file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of an official checkpoint") from None
    return OfficialCheckpoint(path, found, loaded.tensors, loaded.entries)


def _load(path: Path, file: BufferedReader) -> TorchFile:
    try:
        return read_torch_file(file)
    except NoTensors:
        what = "no checkpoint: it must hold tensors by name, alone or under the key state_dict"
        raise UserError(f"{path}: {what}") from None
    except ValueError as error:
        if called := re.search(r"asks for (\S+)", str(error)):
            what = f"refused: it asks to run {called[1]}, and a checkpoint may hold tensors and plain values only"
            raise UserError(f"{path}: {what}") from None
        raise UserError(f"{path}: not a whole PyTorch checkpoint ({error}); download or copy it again") from None


def expected_shapes(name: str, in_channels: int) -> Shapes:
    """Return the shapes of a backbone's parameters at width 1, by name.

    Raises UserError for a backbone that cannot be imported.
    """
    if name not in IMPORTABLE:
        what = f"the official checkpoints of vision transformers are not read, those of {', '.join(IMPORTABLE)} are"
        raise UserError(f"there is no backbone {name!r} to import: {what}")
    network = on_meta_device(lambda: Backbone(name, in_channels).build(1.0))
    return {key: tuple(parameter.shape) for key, parameter in network.named_parameters()}


def map_names(tensors: Mapping[str, Tensor], expected: Shapes) -> Mapped:
    """Map the names of a checkpoint; without their prefixes, official names are ours."""
    whole_model = any(_without_module(name).startswith(ENCODER) for name in tensors)
    mapped = Mapped()
    for given, tensor in tensors.items():
        official = _without_module(given) if whole_model else ENCODER + _without_module(given)
        ours = official.removeprefix(ENCODER)
        if not official.startswith(ENCODER) or ours not in expected:
            _set_aside(mapped, given, official)
        elif ours in mapped.weights:
            mapped.extra.append(given)  # twice, with and without `module.`
        elif _describe(tensor) != str(expected[ours]):
            mapped.misshaped[ours] = f"{given}, {_describe(tensor)} instead of {expected[ours]},"
        else:
            mapped.weights[ours] = tensor.float()
    mapped.missing.extend(key for key in expected if key not in mapped.weights and key not in mapped.misshaped)
    return mapped


def _without_module(name: str) -> str:
    return name.removeprefix("module.")


def _set_aside(mapped: Mapped, given: str, official: str) -> None:
    """Record why a name is no parameter of the backbone, or that it is unknown."""
    reason = next((reason for prefix, reason in LEFT_OUT.items() if official.startswith(prefix)), None)
    if official.endswith(STATISTICS):
        reason = reason or "running statistics, which calibration settles"
    if reason:
        mapped.left_out.setdefault(reason, []).append(given)
    else:
        (mapped.extra if official.startswith(ENCODER) else mapped.left_over).append(given)


def _describe(tensor: Tensor) -> str:
    """Return the shape of a floating-point tensor, or the type of another one."""
    return str(tuple(tensor.shape)) if tensor.is_floating_point() else f"of {tensor.dtype}"


def require_complete(path: Path, mapped: Mapped, name: str, in_channels: int) -> None:
    """Raise UserError where a tensor of the backbone has the wrong shape, is missing, extra, or not finite."""
    not_finite = [key for key, tensor in mapped.weights.items() if not tensor.isfinite().all()]
    kinds = [
        ("has the wrong shape", list(mapped.misshaped.values())),
        ("is missing", mapped.missing),
        ("is extra", mapped.extra),
        ("is not finite", not_finite),
    ]
    for what, names in kinds:
        if names:
            count = f"{what} ({len(names)} such; {len(mapped.weights)} tensors fit)"
            raise UserError(f"{path}: not a {name} for images of {in_channels} channels: {names[0]} {count}")


def summary(official: OfficialCheckpoint, mapped: Mapped, name: str) -> str:
    """Format what was mapped and left out, and the entry of params.yaml that imports the file."""
    kept = [f"{key} {official.entries[key]}" for key in ("arch", "epoch") if key in official.entries]
    others = sorted(str(key) for key in official.entries.keys() - KNOWN_ENTRIES)
    lines = [
        f"{official.path}: {', '.join(kept) or 'a bare backbone'}",
        f"sha256: {official.sha256}",
        f"mapped: {len(mapped.weights)} tensors of {name}, none missing",
        *(f"left out: {reason}: {len(names)} tensors" for reason, names in mapped.left_out.items()),
        *(["left out: state of the optimizer"] if "optimizer" in official.entries else []),
        f"left over: {', '.join([*mapped.left_over, *others]) or 'nothing'}",
    ]
    run = {
        "kind": "import",
        "checkpoint": json.dumps(str(official.path)),
        "sha256": f'"{official.sha256}"',
        "dataset": "DATASET",
        "backbone": name,
        "range": "[0.25, 1.0]",
    }
    return "\n".join([*map(in_one_line, lines), "", "official:", *(f"  {key}: {value}" for key, value in run.items())])


def inspect(path: Path, name: str, in_channels: int, output: Path | None) -> str:
    """Return the summary of a checkpoint; with `output`, also write its backbone there, as pretraining does.

    Raises UserError as `import_backbone` does.
    """
    expected, official = expected_shapes(name, in_channels), read(path)
    mapped = map_names(official.tensors, expected)
    require_complete(path, mapped, name, in_channels)
    if output:
        checkpoint.save(output, add_backbone_prefix(mapped.weights), {"official": official.sha256, "backbone": name})
    return summary(official, mapped, name)
