"""`us3l choose`: the widest network that fits a budget."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from us3l.params.sampling import FixedWidths
from us3l.pipeline.deploy import DeployedRun
from us3l.pipeline.slices import Slice, accuracy_text, measure
from us3l.utils.errors import UserError

UNITS = {
    "latency": {"ms": 1.0, "us": 1e-3, "s": 1e3},
    "macs": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "parameters": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "size": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
}
COSTS: dict[str, Callable[[Slice], float]] = {
    "latency": lambda each: each.latency_ms["pytorch_batch1"].median,
    "macs": lambda each: each.macs,
    "parameters": lambda each: each.parameters,
    "size": lambda each: each.bytes,
}
STEP = 0.01  # between the widths that are looked at


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost, by kind of cost: milliseconds, multiply-accumulates, parameters, bytes."""

    most: dict[str, float]

    def fits(self, each: Slice) -> bool:
        return all(COSTS[kind](each) <= most for kind, most in self.most.items())

    def describe(self, each: Slice) -> str:
        return ", ".join(f"{kind} {_quantity(kind, COSTS[kind](each))}" for kind in self.most)


def parse_budget(**given: str | None) -> Budget:
    """Read quantities with their units, by kind of cost. Raises UserError for another unit, and where none is given."""
    budget = {kind: _parse(kind, text) for kind, text in given.items() if text is not None}
    if not budget:
        raise UserError("give a budget: --latency 5ms, --macs 50M, --parameters 1M or --size 4MB, or several of them")
    return Budget(budget)


def _parse(kind: str, text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if not match or match[2] not in UNITS[kind]:
        units = ", ".join(unit or "none" for unit in UNITS[kind])
        raise UserError(f"--{kind} {text}: give a number with one of the units {units}")
    return float(match[1]) * UNITS[kind][match[2]]


def _quantity(kind: str, value: float) -> str:
    """Format a quantity with the largest unit that leaves one digit before the point."""
    by_size = sorted(UNITS[kind].items(), key=lambda item: item[1])
    unit, size = next((each for each in reversed(by_size) if value >= each[1]), by_size[0])
    return f"{value / size:.3g}{unit and f' {unit}'}"


def choose(deployed: DeployedRun, budget: Budget) -> None:
    """Print the widest network of the trained range that fits, by bisection, with its costs and accuracy.

    Raises UserError where not even the narrowest fits.
    """
    batches = (1,) if "latency" in budget.most else ()
    found = widest_that_fits(candidates(deployed), lambda width: measure(deployed, width, batches), budget)
    run = deployed.run
    print(f"width {found.width:g}: {budget.describe(found)}; top-1 {accuracy_text(found)}")
    print(f"us3l export {run.study} {run.name} {deployed.seed} --width {found.width:g}")


def candidates(deployed: DeployedRun) -> list[float]:
    """List the widths to look at, narrowest first: hundredths of the trained range and its ends, or fixed widths."""
    sampling = deployed.sampling
    if isinstance(sampling, FixedWidths):
        return sorted(sampling.widths)
    first, last = sampling.range
    between = [round(number * STEP, 2) for number in range(int(first / STEP), int(last / STEP) + 2)]
    return [first, *(width for width in between if first < width < last), *([last] if last > first else [])]


def widest_that_fits(widths: Sequence[float], measured: Callable[[float], Slice], budget: Budget) -> Slice:
    """Bisect widths, narrowest first, whose costs rise. Raises UserError where not even the first fits."""
    best = measured(widths[0])
    if not budget.fits(best):
        raise UserError(f"nothing fits: the narrowest network, of width {widths[0]:g}, has {budget.describe(best)}")
    low, high = 0, len(widths)  # the one at `low` fits, that at `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        each = measured(widths[middle])
        if budget.fits(each):
            low, best = middle, each
        else:
            high = middle
    return best
