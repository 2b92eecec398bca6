"""Width sampling: the widths of each training step."""

import torch

from us3l.params.sampling import FixedWidths, Sampling
from us3l.utils.philox import Purpose, RandomKey, uniform


def min_width(sampling: Sampling, epoch: int, epochs: int) -> float:
    """Return the narrowest width of an epoch.

    Dynamic sampling (strategy A of the official code) trains the widest network alone for a quarter of the epochs, then
    goes down to two thirds, one third and the whole of the range. The official code leaves the range when 4 does not
    divide the epochs; here the last quarter lasts until the end.
    """
    low, high = sampling.range
    if sampling.schedule == "constant":
        return low
    quarter = min(epoch // max(1, epochs // 4), 3)
    return low + (3 - quarter) * (high - low) / 3 if quarter else high


def probe_widths(sampling: Sampling | FixedWidths, between: int) -> list[float]:
    """Return widths that stand for all that training may sample: the fixed ones, or a range's ends and some between.

    The inner ones are odd fractions, as sampled ones are.
    """
    if isinstance(sampling, FixedWidths):
        return sampling.widths
    low, high = sampling.range
    inner = [round(low + (high - low) * part / (between + 1), 4) for part in range(1, between + 1)]
    return list(dict.fromkeys([low, *inner, high]))


def sample(sampling: Sampling | FixedWidths, epoch: int, epochs: int, seed: int, step: int) -> list[float]:
    """Sample the widths of one step, widest first, the same in every process.

    The sandwich rule (US-Nets, arXiv 1903.05134) takes the widest, the narrowest and uniform ones between them.
    """
    if isinstance(sampling, FixedWidths):
        return sorted(sampling.widths, reverse=True)
    low, high = min_width(sampling, epoch, epochs), sampling.range[1]
    if low == high:
        return [high]
    ends = [high, low] if sampling.rule == "sandwich" else []
    key = RandomKey(seed, Purpose.WIDTHS, epoch)
    drawn = uniform(key, torch.tensor([step]), count=sampling.widths_per_step - len(ends))
    return sorted([*ends, *(low + (high - low) * drawn[0]).tolist()], reverse=True)
