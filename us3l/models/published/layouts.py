"""The layouts of checkpoints that others published: how each names the tensors of a backbone.

US3L: megvii-research/US3L-CVPR2023, whose names are ours. SlimCLR: mzhaoshuai/SlimCLR (arXiv 2209.15525). S-Nets and
US-Nets: JiahuiYu/slimmable_networks (arXiv 1812.08928 and 1903.05134). All may have `module.` in front, if trained in
parallel. A BatchNorm of each width is `NAME.bn.I`; US-Nets have only statistics there.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from us3l.utils.errors import UserError


@dataclass(frozen=True)
class Layout:
    """A layout: what only its names match, its name of a tensor in our words, and what to say where one does not fit.

    `rename` takes the name of a tensor in the backbone and the names of a ResNet's blocks, in order.
    """

    title: str
    sign: str
    rename: Callable[[str, Sequence[str]], str] = lambda name, blocks: name
    caveat: str = ""


def recognise(path: Path, names: Iterable[str]) -> Layout:
    """Return the layout of a checkpoint with these names. Raises UserError for one that is known, but not read."""
    names = list(names)
    layout = next(each for each in LAYOUTS if any(re.search(rf"(?:^|\.){each.sign}", name) for name in names))
    if layout is SHUFFLENET:
        raise UserError(f"{path}: holds an {layout.title}, a network that there is not here; {READ}")
    return layout


def _slimclr(name: str, blocks: Sequence[str]) -> str:
    """Blocks are counted through all stages."""
    found = re.fullmatch(r"features\.(\d{1,4})\.(.*)", name)
    if not found or int(found[1]) >= len(blocks):
        return name
    return f"{blocks[int(found[1])]}.{found[2]}".replace(".shortcut.", ".downsample.")


def _slimmable_networks(name: str, blocks: Sequence[str]) -> str:
    """The stem is block 0; a ResNet's block lists convolution, BatchNorm and ReLU in turn. MobileNets are as ours."""
    found = re.fullmatch(r"features\.(\d{1,4})\.(?:(body|shortcut)\.)?(\d{1,4})\.(\w+)", name)
    if not blocks or not found or int(found[1]) > len(blocks):
        return name
    block, part, layer, value = int(found[1]), found[2], int(found[3]), found[4]
    owner = f"{blocks[block - 1]}." if block else ""
    if part == "shortcut":
        return f"{owner}downsample.{layer}.{value}"
    return f"{owner}{('conv', 'bn', 'relu')[layer % 3]}{layer // 3 + 1}.{value}"


SHUFFLENET = Layout("S-ShuffleNet", r"features\.\d+\.a_\d+\.")
US3L = Layout("US3L", "")
LAYOUTS = (
    SHUFFLENET,
    Layout("SlimCLR", r"features\.\d+\.conv1\.weight$", _slimclr),
    Layout(
        "S-Nets",
        r"features\.0\.1\.bn\.\d+\.weight$",
        _slimmable_networks,
        "AutoSlim's networks, which have these names and channels of their own, are not read",
    ),
    Layout("US-Nets", r"features\.0\.1\.bn\.\d+\.running_mean$", _slimmable_networks),
    US3L,  # whatever is left
)
READ = "read are the checkpoints of US3L, SlimCLR, S-Nets and US-Nets"
