"""Agreement between the widths of a table's rows: the share of test images to which both give the same class."""

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from us3l.evaluation.predictions import decode
from us3l.pipeline.figures.style import empty
from us3l.pipeline.plan.figure import FigurePlan
from us3l.pipeline.tables.cells import Cell, read_cells

COLUMNS = 4
TITLE = 36  # characters of a line above a field
MOST_NUMBERS = 8  # widths, so that a number fits into each field


def draw(plan: FigurePlan) -> Figure:
    """Draw for each row of at least two widths a field for each pair of them; mean over the seeds that both have."""
    table = plan.shown_table
    cells = [cell for cell in read_cells(table) if cell.values]
    rows = {row.label: [cell for cell in cells if cell.place.number == n] for n, row in enumerate(table.table.rows)}
    rows = {label: row for label, row in rows.items() if len(row) > 1}
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = empty(2.6 * columns + 0.8, 2.7 * lines + 0.4, lines, columns)
    matrices = [agreement(row) for row in rows.values()]
    lowest = min(float(np.nanmin(each)) for each in matrices)
    for place, (label, row), matrix in zip(axes.flat, rows.items(), matrices, strict=False):
        image = place.imshow(matrix, cmap="cividis", vmin=lowest, vmax=100)
        _label(place, label, [f"{cell.place.width:g}" for cell in row], matrix, lowest)
    for place in axes.flat[len(rows) :]:
        place.set_axis_off()
    figure.colorbar(image, ax=axes, label="test images with the same class (%)", shrink=0.8)
    figure.suptitle(f"Agreement between widths: {plan.study} {table.name}")
    return figure


def agreement(row: list[Cell]) -> np.ndarray:
    """Return the share of test images, in percent, to which the networks of two cells give the same class.

    [cells, cells]; NaN where two cells have no seed in common, or were tested on other images.
    """
    predictions = [_predictions(cell) for cell in row]
    return np.array([[_share(one, other) for other in predictions] for one in predictions])


def _predictions(cell: Cell) -> dict[tuple[int, str], np.ndarray]:
    """Return the predicted classes of each seed and data set."""
    records = [(each.seed, next(iter(each.records.values()))) for each in cell.evaluations]
    return {(seed, record["data"]): decode(record["predictions"], record["n"]) for seed, record in records}


def _share(one: dict[Any, np.ndarray], other: dict[Any, np.ndarray]) -> float:
    shares = [100 * np.mean(one[key] == other[key]) for key in one.keys() & other.keys()]
    return float(np.mean(shares)) if shares else float("nan")


def _label(place: Any, label: str, widths: list[str], matrix: np.ndarray, lowest: float) -> None:
    place.set_title(fill(label, TITLE))
    place.set(xticks=range(len(widths)), yticks=range(len(widths)), xlabel="width", ylabel="width")
    place.set_xticklabels(widths, rotation=90 if len(widths) > MOST_NUMBERS else 0)
    place.set_yticklabels(widths)
    place.grid(False)
    place.spines[:].set_visible(False)
    for (y, x), value in np.ndenumerate(matrix):
        if len(widths) <= MOST_NUMBERS and not np.isnan(value):
            color = "black" if value > (lowest + 100) / 2 else "white"
            place.text(x, y, f"{value:.0f}", ha="center", va="center", color=color)
