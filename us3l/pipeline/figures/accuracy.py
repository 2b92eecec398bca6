"""Accuracy of a table's rows against width, and against multiply-accumulates."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from us3l.pipeline.figures.style import empty, row_style
from us3l.pipeline.plan.figure import FigurePlan
from us3l.pipeline.tables.cells import Cell, read_cells

APART = 0.016  # of the widths' axis, between the marks of two rows
CHEAP = 0.01  # of the greatest cost: what costs less is a line, as pixels are, and leaves the room to the others


def draw(plan: FigurePlan) -> Figure:
    """Draw the mean of each cell with its 95% interval, and every seed as a small point.

    The interval is Student's over seeds, or Wilson's over test images where there is one seed.
    """
    table = plan.shown_table
    cells = [cell for cell in read_cells(table) if cell.values]
    labels, most = [row.label for row in table.table.rows], max(map(_macs, cells))
    figure, [[by_width, by_cost]] = empty(9, 3.9 + 0.2 * (len(labels) + 1) // 2, columns=2, sharey=True)
    for number in range(len(labels)):
        row = [cell for cell in cells if cell.place.number == number]
        apart = APART * (number - (len(labels) - 1) / 2)
        _draw_row(by_width, row, number, [cell.place.width + apart for cell in row])
        if max(map(_macs, row)) < CHEAP * most:
            by_cost.axhline(max(cell.mean or 0.0 for cell in row), **row_style(number) | {"marker": ""})
        else:
            _draw_row(by_cost, row, number, [_macs(cell) / 1e6 * 10 ** (2 * apart) for cell in row])
    by_width.set(xlabel="width", ylabel=f"{table.measure}, top-1 (%)", xticks=sorted(table.widths))
    by_cost.set(xlabel="multiply-accumulates of an image (millions)", xscale="log")
    by_cost.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    by_cost.xaxis.set_minor_locator(NullLocator())
    by_cost.xaxis.set_major_formatter("{x:g}")
    figure.suptitle(table.table.title)
    handles, named = by_width.get_legend_handles_labels()
    figure.legend(handles, named, loc="outside lower center", ncols=1 if max(map(len, labels)) > 60 else 2)
    return figure


def _draw_row(axes: Any, row: list[Cell], number: int, places: list[float]) -> None:
    style, means = row_style(number), [cell.mean or 0.0 for cell in row]
    bounds = np.array([_interval(cell) for cell in row]).T
    axes.errorbar(places, means, bounds, capsize=3, elinewidth=0.8, label=row[0].place.row.label, **style)
    for x, cell in zip(places, row, strict=True):
        seeds = {"marker": "o", "markersize": 2.8, "markerfacecolor": "white", "markeredgewidth": 0.7, "zorder": 3}
        axes.plot([x] * len(cell.values), cell.values, linestyle="", color=style["color"], **seeds)


def _interval(cell: Cell) -> tuple[float, float]:
    """Return how far the 95% interval reaches below and above the mean."""
    [low, high], mean = cell.interval or (0.0, 0.0), cell.mean or 0.0
    return mean - low, high - mean


def _macs(cell: Cell) -> int:
    return cell.of_network("macs") or 0
