"""How figures look: rows that anyone can tell apart, also in grey, and files that are the same each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

# Colours of Okabe and Ito, which people with any colour blindness tell apart; dark and light ones take turns.
COLORS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#D55E00", "#56B4E9")
MARKERS = "osD^vP*Xhp"
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":")
LOOK = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "text.parse_math": False,  # titles and labels are people's own words
    "svg.hashsalt": "us3l",
}


def row_style(number: int) -> dict[str, Any]:
    """Return colour, marker and line of a row, from 0; of 70 rows no two have the same."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


@contextmanager
def look() -> Iterator[None]:
    """Draw in this project's style, whatever the user's own matplotlibrc says."""
    with matplotlib.style.context(["default", LOOK]):
        yield


def empty(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of this size, in inches, and its axes [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def write_figure(figure: Figure, path: Path, suffix: str) -> None:
    """Write a figure as svg or png, without date and version: the same figure gives the same bytes."""
    left_out = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[suffix]
    figure.savefig(path, format=suffix, dpi=160, metadata=left_out)
