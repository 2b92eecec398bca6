"""`python docs/figures/accuracy.py TABLE.json FIGURE.png`: accuracy at each width, as a table's record has it."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

STYLES = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#444444", "P")]


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the mean of each row with its 95% interval at each width, and every seed as a small point."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    rows = list(dict.fromkeys(cell["row"] for cell in record["cells"]))
    for number, (row, (color, marker)) in enumerate(zip(rows, STYLES[: len(rows)], strict=True)):
        cells = [cell for cell in record["cells"] if cell["row"] == row]
        apart = 0.012 * (number - (len(rows) - 1) / 2)
        places = [cell["width"] + apart for cell in cells]
        means, halves = [cell["mean"] for cell in cells], [cell["ci95"] for cell in cells]
        axes.errorbar(places, means, halves, color=color, marker=marker, capsize=3, linewidth=1.2, label=row)
        for place, cell in zip(places, cells, strict=True):
            axes.plot([place] * cell["n"], cell["values"], ".", color=color, markersize=4, alpha=0.6)
    axes.set(xlabel="width", ylabel="top-1 (%)", xticks=sorted({cell["width"] for cell in record["cells"]}))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    table, figure_file = map(Path, sys.argv[1:])
    draw(json.loads(table.read_text(encoding="utf-8")), figure_file)
