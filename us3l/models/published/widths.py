"""Which width has which number in a published checkpoint: that of the plain network with the same channels."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from torch import nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.batch_norms import batch_norm_parameters
from us3l.models.meta import on_meta_device
from us3l.utils.errors import UserError

Channels = dict[str, int]  # of BatchNorms, by the names of their parameters
STEPS = (4, 20, 40)  # in a width of 1: those that published networks have, round ones first
USUAL = tuple(dict.fromkeys(number / steps for steps in STEPS for number in range(steps, steps // 4 - 1, -1)))


def name_widths(
    path: Path, listed: Mapping[int, Channels], backbone: Backbone, widths: Sequence[float]
) -> dict[int, float]:
    """Return which of these widths each number is. Raises UserError where they are not those of the checkpoint."""
    if len(listed) != len(widths):
        raise UserError(f"{path}: has BatchNorms for {len(listed)} widths, not for the {len(widths)} that are named")
    channels, named = _channels(backbone), dict[int, float]()
    for number, found in sorted(listed.items()):
        fitting = [width for width in widths if _fits(found, channels(width))]
        if not fitting:
            raise UserError(
                f"{path}: {_misfit(number, found)}, as none of the widths {', '.join(map(str, widths))} has"
            )
        if len(fitting) > 1 or fitting[0] in named.values():
            what = f"more than one of its widths may be {fitting[0]}, by the channels of {backbone.name}"
            raise UserError(f"{path}: {what}: whose BatchNorms are which cannot be told")
        named[number] = fitting[0]
    return named


def find_widths(path: Path, listed: Mapping[int, Channels], backbone: Backbone) -> dict[int, float]:
    """Return the usual width of each number, as far as channels tell it: widths with the same channels are one network.

    Raises UserError where no usual width fits.
    """
    channels, named = _channels(backbone), dict[int, float]()
    for number, found in sorted(listed.items()):
        fitting = [width for width in USUAL if _fits(found, channels(width))]
        if not fitting:
            what = f"{_misfit(number, found)}, as no width from 0.25 to 1.0 in steps of {1 / STEPS[-1]} has"
            raise UserError(f"{path}: {what}; say the widths of the file with --widths")
        named[number] = fitting[0]
    return named


def require_listed(path: Path, listed: Mapping[int, Channels], backbone: Backbone, narrowest: float) -> None:
    """Raise UserError where the checkpoint has statistics of widths, all of them wider than `narrowest`."""
    if not listed:
        return
    at = _channels(backbone)(narrowest)
    for name, count in min(listed.values(), key=lambda found: sum(found.values())).items():
        if name in at and count > at[name]:
            what = f"{name} has {count} channels at its narrowest width, and {at[name]} at {narrowest}"
            raise UserError(f"{path}: {what}, where its range must not begin, then; see `us3l import`")


def _channels(backbone: Backbone) -> Callable[[float], Channels]:
    """Return a function of a width to the channels of its BatchNorms."""

    @cache
    def count(width: float) -> Channels:
        network = on_meta_device(lambda: backbone.build(width))
        return {name: len(each) for name, each in batch_norm_parameters(network, nn.BatchNorm2d).items()}

    return count


def _fits(found: Channels, channels: Channels) -> bool:
    return all(channels.get(name) == count for name, count in found.items())


def _misfit(number: int, found: Channels) -> str:
    name, count = next(iter(found.items()))
    return f"in its width with number {number}, {name} has {count} channels"
