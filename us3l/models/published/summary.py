"""What `us3l import` prints of a published checkpoint, and the weights that it writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from us3l.models.backbones.backbone import Backbone
from us3l.models.published.file import Published, read
from us3l.models.published.matching import Matched, given_widths, match, require_importable
from us3l.models.published.widths import find_widths
from us3l.models.saved_network import add_backbone_prefix
from us3l.utils import checkpoint
from us3l.utils.errors import UserError, in_one_line

KNOWN_ENTRIES = {"arch", "epoch", "last_epoch", "optimizer"}


def inspect(path: Path, backbone: Backbone, widths: Sequence[float] | None, output: Path | None) -> str:
    """Return the summary of a checkpoint; with `output`, also write its backbone there, as pretraining does.

    widths: those of switchable BatchNorms, or None to find them by their channels. Raises UserError as
    `import_backbone` does.
    """
    require_importable(backbone.name)
    published = read(path)
    matched = match(published, backbone)
    if widths is not None:
        if not all(0.25 <= width <= 1 for width in widths):
            raise UserError(f"--widths {', '.join(map(str, widths))}: give widths from 0.25 to 1.0")
        named = given_widths(path, matched, backbone, widths)
    else:
        named = find_widths(path, matched.listed, backbone)
    if matched.switchable and 1.0 not in named.values():
        raise UserError(f"{path}: has the widths {_listed(named)}, and not 1.0, the width of a checkpoint's weights")
    if len(set(named.values())) < len(named):
        raise UserError(f"{path}: more than one of its widths may be one of {_listed(named)}; name them by --widths")
    if output:
        weights = matched.weights_of(named if matched.switchable else {})
        checkpoint.save(output, add_backbone_prefix(weights), {"imported": published.sha256, "backbone": backbone.name})
    return _summary(published, matched, backbone.name, named)


def _listed(named: Mapping[int, float]) -> str:
    return ", ".join(map(str, sorted(named.values(), reverse=True)))


def _summary(published: Published, matched: Matched, name: str, named: Mapping[int, float]) -> str:
    """Format what was mapped and left out, and the entry of params.yaml that imports the file."""
    kept = [f"{key} {published.entries[key]}" for key in ("arch", "epoch", "last_epoch") if key in published.entries]
    others = sorted(str(key) for key in published.entries.keys() - KNOWN_ENTRIES)
    lines = [
        f"{published.path}: {', '.join(kept) or 'tensors alone'}",
        f"sha256: {published.sha256}",
        f"layout: {matched.layout.title}",
        f"mapped: {matched.mapped} tensors of {name}, none missing",
        *([f"BatchNorms of each width: {_listed(named)}"] if matched.switchable else []),
        *(f"left out: {reason}: {len(names)} tensors" for reason, names in matched.left_out.items()),
        *(["left out: state of the optimizer"] if "optimizer" in published.entries else []),
        f"left over: {', '.join([*matched.left_over, *others]) or 'nothing'}",
        *_doubts(matched, named),
    ]
    narrowest = min(named.values(), default=0.25)
    widths = {"widths": f"[{_listed(named)}]"} if matched.switchable else {"range": f"[{narrowest}, 1.0]"}
    run = {
        "kind": "import",
        "checkpoint": json.dumps(str(published.path)),
        "sha256": f'"{published.sha256}"',
        "dataset": "DATASET",
        "backbone": name,
        **widths,
    }
    return "\n".join([*map(in_one_line, lines), "", "imported:", *(f"  {key}: {value}" for key, value in run.items())])


def _doubts(matched: Matched, named: Mapping[int, float]) -> list[str]:
    """Say what no tensor tells: whether narrow networks of SlimCLR are parts of the widest that do not overlap."""
    if matched.layout.title != "SlimCLR" or sum(named.values()) > 2:
        return []
    return ["not told by the file: it must be of a training with overlap_weight=True; else narrow widths are wrong"]
