"""A published checkpoint matched with a backbone of ours: every name is accounted for, so that no tensor is lost.

The file may hold the whole model of a self-supervised training, or the bare backbone.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.batch_norms import batch_norm_parameters
from us3l.models.meta import on_meta_device
from us3l.models.published.file import Published, read
from us3l.models.published.layouts import READ, US3L, Layout, recognise
from us3l.models.published.widths import Channels, name_widths, require_listed
from us3l.utils.errors import UserError

Shapes = dict[str, tuple[int, ...]]
ENCODERS = ("encoder_q.", "base_encoder.")
LEFT_OUT = {
    "encoder_k.": "momentum encoder",
    "momentum_encoder.": "momentum encoder",
    "predictor.": "predictor",
    "predictor_new.": "predictor of the distillation",
    "proj_conv.": "projections of the feature distillation",
    "queue": "queue of negatives",
}
HEADS = {"fc.": "projector or classifier", "classifier.": "classifier"}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
OF_A_WIDTH = re.compile(r"(.+)\.bn\.(\d{1,4})\.(\w+)")  # a BatchNorm of one width
IMPORTABLE = [name for name in BUILT_IN if name != "pixels" and not name.startswith("vit-")]


@dataclass(frozen=True)
class Matched:
    """A checkpoint's names, sorted: the backbone's tensors, names left out by reason, unknown names, and mismatches.

    switchable: the parameters of BatchNorms of one width, by the width's number in the file and by their names.
    listed: the channels of BatchNorms of one width, which may have statistics only.
    """

    layout: Layout
    weights: dict[str, Tensor] = field(default_factory=dict)
    switchable: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    listed: dict[int, Channels] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshaped: dict[str, str] = field(default_factory=dict)

    @property
    def mapped(self) -> int:
        """Number of tensors of the backbone."""
        return len(self.weights) + sum(map(len, self.switchable.values()))

    @property
    def facts(self) -> dict[str, Any]:
        """The record of an import: the layout, how many tensors were mapped and left out, and the names left over."""
        left_out = {reason: len(names) for reason, names in self.left_out.items()}
        counts = {"mapped": self.mapped, "left_out": left_out, "left_over": self.left_over}
        return {"layout": self.layout.title, **counts}

    def weights_of(self, widths: Mapping[int, float]) -> dict[str, Tensor]:
        """Return the weights by our names; BatchNorms of the widths below 1 are NAME@WIDTH."""
        named = dict(self.weights)
        for number, width in widths.items():
            suffix = "" if width == 1.0 else f"@{width}"
            named |= {f"{name}{suffix}": tensor for name, tensor in self.switchable[number].items()}
        return named


def import_backbone(
    path: Path, sha256: str, backbone: Backbone, widths: Sequence[float] | None, narrowest: float
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of a backbone from a checkpoint with this SHA-256; return them, and facts about the import.

    widths: those of switchable BatchNorms; None for a universally slimmable network, whose range begins at `narrowest`.
    Raises UserError where the file is missing, has another SHA-256, is not safe to read, or does not hold that
    backbone with these widths, and for a backbone that cannot be imported.
    """
    require_importable(backbone.name)
    matched = match(read(path, sha256), backbone)
    if matched.switchable and widths is None:
        what = f"has BatchNorms of its own for each of {len(matched.switchable)} widths"
        raise UserError(f"{path}: {what}: params.yaml must name them in order of size, as widths, and no range")
    if widths is not None:
        return matched.weights_of(given_widths(path, matched, backbone, widths)), matched.facts
    require_listed(path, matched.listed, backbone, narrowest)
    return matched.weights, matched.facts


def given_widths(path: Path, matched: Matched, backbone: Backbone, widths: Sequence[float]) -> dict[int, float]:
    """Return the width of each number of switchable BatchNorms, of those given. Raises UserError where one misfits."""
    if not matched.switchable:
        raise UserError(f"{path}: has the same BatchNorms for all widths: it takes a range, and no widths")
    return name_widths(path, matched.listed, backbone, widths)


def require_importable(name: str) -> None:
    """Raise UserError for a backbone that cannot be imported."""
    if name not in IMPORTABLE:
        what = f"the checkpoints of vision transformers are not read, those of {', '.join(IMPORTABLE)} are"
        raise UserError(f"there is no backbone {name!r} to import: {what}")


def match(published: Published, backbone: Backbone) -> Matched:
    """Match a checkpoint with a backbone.

    Raises UserError where its layout is not read, or where a tensor of the backbone has the wrong shape, is missing,
    extra, or not finite.
    """
    matched = map_names(published.tensors, recognise(published.path, published.tensors), backbone)
    _require_complete(published.path, matched, backbone)
    return matched


def map_names(tensors: Mapping[str, Tensor], layout: Layout, backbone: Backbone) -> Matched:
    """Map the names of a checkpoint to those of a backbone."""
    network = on_meta_device(lambda: backbone.build(1.0))
    expected = {key: tuple(parameter.shape) for key, parameter in network.named_parameters()}
    norms = batch_norm_parameters(network, nn.BatchNorm2d).keys()
    blocks = list(dict.fromkeys(found[0] for name in expected if (found := re.match(r"layer\d+\.\d+", name))))
    prefix = next((each for each in ENCODERS if any(_without_module(name).startswith(each) for name in tensors)), "")
    matched = Matched(layout)
    for given, tensor in tensors.items():
        theirs = _without_module(given)
        if not theirs.startswith(prefix):
            _set_aside(matched, given, theirs)
            continue
        inner = theirs.removeprefix(prefix)
        ours, number = _in_our_words(inner, layout, blocks)
        _note_channels(matched, number, ours, tensor, norms)
        if ours not in expected or (number is not None and ours not in norms):
            _set_aside_of_backbone(matched, given, inner)
        elif number is not None:
            _take_switchable(matched, number, ours, given, tensor)
        else:
            _take(matched, ours, given, tensor, expected[ours])
    return _with_missing(matched, expected, list(norms))


def _without_module(name: str) -> str:
    return name.removeprefix("module.")


def _in_our_words(name: str, layout: Layout, blocks: Sequence[str]) -> tuple[str, int | None]:
    """Return our name of a tensor of the backbone, and the number of the width whose BatchNorm it is of, if of one."""
    found = OF_A_WIDTH.fullmatch(name)
    if found is None:
        return layout.rename(name, blocks), None
    return layout.rename(f"{found[1]}.{found[3]}", blocks), int(found[2])


def _note_channels(matched: Matched, number: int | None, ours: str, tensor: Tensor, norms: Collection[str]) -> None:
    """Note the channels of a BatchNorm of one width, by its weight, bias or means."""
    name = ours.replace("running_mean", "weight")
    if number is not None and name in norms:
        matched.listed.setdefault(number, {})[name] = tensor.numel()


def _take(matched: Matched, ours: str, given: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if ours in matched.weights:
        matched.extra.append(given)  # twice, with and without `module.`
    elif _describe(tensor) != str(shape):
        matched.misshaped[ours] = f"{given}, {_describe(tensor)} instead of {shape},"
    else:
        matched.weights[ours] = tensor.float()


def _take_switchable(matched: Matched, number: int, ours: str, given: str, tensor: Tensor) -> None:
    if ours in matched.switchable.setdefault(number, {}):
        matched.extra.append(given)
    elif not tensor.is_floating_point() or tensor.dim() != 1:
        matched.misshaped[ours] = f"{given}, {_describe(tensor)} instead of one number for each channel,"
    else:
        matched.switchable[number][ours] = tensor.float()


def _set_aside(matched: Matched, given: str, theirs: str) -> None:
    """Record why a name is not the encoder's, or that it is unknown."""
    reason = next((reason for prefix, reason in LEFT_OUT.items() if theirs.startswith(prefix)), None)
    if reason:
        matched.left_out.setdefault(reason, []).append(given)
    else:
        matched.left_over.append(given)


def _set_aside_of_backbone(matched: Matched, given: str, inner: str) -> None:
    """Record why a name of the encoder is no parameter of the backbone, or that it should not be there."""
    reason = next((reason for prefix, reason in HEADS.items() if inner.startswith(prefix)), None)
    if inner.endswith(STATISTICS):
        reason = reason or "running statistics, which calibration settles"
    if reason:
        matched.left_out.setdefault(reason, []).append(given)
    else:
        matched.extra.append(given)


def _with_missing(matched: Matched, expected: Shapes, norms: Sequence[str]) -> Matched:
    """Add what the backbone lacks, or the BatchNorms of a width, and what is there both once and for each width."""
    switchable = {name for of_width in matched.switchable.values() for name in of_width}
    found = matched.weights.keys() | matched.misshaped.keys() | switchable
    matched.missing.extend(name for name in expected if name not in found)
    for number, of_width in sorted(matched.switchable.items()):
        lacking = (name for name in norms if name in switchable and name not in of_width)
        matched.missing.extend(f"{name} of the width with number {number}" for name in lacking)
    matched.extra.extend(name for name in matched.weights if name in switchable)
    return matched


def _describe(tensor: Tensor) -> str:
    """Return the shape of a floating-point tensor, or the type of another one."""
    return str(tuple(tensor.shape)) if tensor.is_floating_point() else f"of {tensor.dtype}"


def _require_complete(path: Path, matched: Matched, backbone: Backbone) -> None:
    of_widths = (pair for of_width in matched.switchable.values() for pair in of_width.items())
    not_finite = [key for key, tensor in (*matched.weights.items(), *of_widths) if not tensor.isfinite().all()]
    kinds = [
        ("has the wrong shape", list(matched.misshaped.values())),
        ("is missing", matched.missing),
        ("is extra", matched.extra),
        ("is not finite", not_finite),
    ]
    for what, names in kinds:
        if names:
            layout = "" if matched.layout is US3L else f" in the layout of {matched.layout.title}"
            network = f"not a {backbone.name} for images of {backbone.in_channels} channels{layout}"
            count = f"{what} ({len(names)} such; {matched.mapped} tensors fit)"
            raise UserError(f"{path}: {network}: {names[0]} {count}; {matched.layout.caveat or READ}")
