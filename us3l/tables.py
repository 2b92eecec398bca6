"""Tables: rows are runs, columns are widths, a cell is the mean over seeds with its 95% interval.

A cell without evaluations is empty and marked; one with fewer seeds than planned says so. Nothing here needs PyTorch.
"""

import csv
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from us3l.errors import UserError
from us3l.files import replacing, write_json
from us3l.plan import TablePlan, code
from us3l.provenance import fingerprint

MISSING = "—"
SOURCE = ("run", "seed", "fingerprint", "checkpoint", "network", "data", "git")


@dataclass(frozen=True)
class Cell:
    """Top-1 accuracies in percent, one a seed; `planned` is how many seeds there should be."""

    values: list[float]
    planned: int
    sources: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def half_width(self) -> float | None:
        """Half of Student's 95% interval of the mean over seeds; None for fewer than two."""
        if len(self.values) < 2:
            return None
        from scipy.special import stdtrit

        n = len(self.values)
        return float(stdtrit(n - 1, 0.975)) * statistics.stdev(self.values) / n**0.5

    def text(self, plus_minus: str) -> str:
        if self.mean is None:
            return MISSING
        spread = "" if self.half_width is None else f" {plus_minus} {self.half_width:.1f}"
        partial = f" (n={len(self.values)} of {self.planned})" if len(self.values) < self.planned else ""
        return f"{self.mean:.1f}{spread}{partial}"


Rows = list[list[Cell]]


def write_table(plan: TablePlan) -> None:
    """Write the table as Markdown, CSV, LaTeX and, with the sources of every cell, JSON."""
    rows = read_rows(plan)
    writers: dict[str, Callable[[TablePlan, Rows], str]] = {"md": markdown, "csv": comma_separated, "tex": latex}
    for suffix, render in writers.items():
        with replacing(plan.file(suffix)) as temporary:
            temporary.write_text(render(plan, rows))
    write_json(plan.file("json"), with_sources(plan, rows))


def read_rows(plan: TablePlan) -> Rows:
    """The cells of each row; an evaluation that is absent leaves its seed out."""
    rows: Rows = [[] for _ in plan.table.rows]
    for index, width, paths in plan.cells():
        found = {path: _read(path, width) for path in paths if path.is_file()}
        sources = [{"file": str(path), **{key: each[key] for key in SOURCE}} for path, each in found.items()]
        rows[index].append(Cell([each["top1"] for each in found.values()], len(paths), sources))
    return rows


def _read(path: Path, width: float) -> dict[str, Any]:
    try:
        evaluation = json.loads(path.read_text())
        if evaluation["width"] == width and 0 <= evaluation["top1"] <= 100 and evaluation.keys() >= {*SOURCE}:
            return evaluation
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path}: not an evaluation at width {width}; delete it and run `us3l linear` again")


def markdown(plan: TablePlan, rows: Rows) -> str:
    lines = [["", *_columns(plan)], ["---", *["---:"] * len(plan.widths)]]
    lines += [
        [row.label.replace("|", r"\|"), *_texts(cells, "±")] for row, cells in zip(plan.table.rows, rows, strict=True)
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{plan.table.title}\n\n{table}\n\n{_caption(rows)}\n"


def comma_separated(plan: TablePlan, rows: Rows) -> str:
    """One line a cell, numbers in full; an empty cell has an empty mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "width", "mean", "half_width", "n", "planned"])
    for row, cells in zip(plan.table.rows, rows, strict=True):
        for width, cell in zip(plan.widths, cells, strict=True):
            writer.writerow([row.label, width, cell.mean, cell.half_width, len(cell.values), cell.planned])
    return text.getvalue()


def latex(plan: TablePlan, rows: Rows) -> str:
    """A booktabs table."""
    body = [
        " & ".join([_escape(row.label), *_texts(cells, r"$\pm$")])
        for row, cells in zip(plan.table.rows, rows, strict=True)
    ]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escape(plan.table.title)}. {_escape(_caption(rows))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(plan.widths)}}}",
        r"\toprule",
        " & ".join(["", *_columns(plan)]) + r" \\",
        r"\midrule",
        *(line + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def with_sources(plan: TablePlan, rows: Rows) -> dict[str, Any]:
    """The table with, for every cell, its values and what they came from."""
    identity = {"stage": "table", "recipe": plan.recipe, "code": code("table")}
    cells = [
        {
            "row": row.label,
            "width": width,
            "mean": cell.mean,
            "half_width": cell.half_width,
            "n": len(cell.values),
            "planned": cell.planned,
            "values": cell.values,
            "sources": cell.sources,
        }
        for row, line in zip(plan.table.rows, rows, strict=True)
        for width, cell in zip(plan.widths, line, strict=True)
    ]
    return {"title": plan.table.title, "fingerprint": fingerprint(identity), **identity, "cells": cells}


def _columns(plan: TablePlan) -> list[str]:
    return [f"{width:g}x" for width in plan.widths]


def _texts(cells: list[Cell], plus_minus: str) -> list[str]:
    return [cell.text(plus_minus) for cell in cells]


def _caption(rows: Rows) -> str:
    counts = sorted({len(cell.values) for line in rows for cell in line if cell.values})
    n = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    missing = f"; {MISSING}: no result" if any(not cell.values for line in rows for cell in line) else ""
    return f"Mean ± half of the 95% interval (Student's t) over seeds, n = {n}{missing}."


def _escape(text: str) -> str:
    escaped = {character: f"\\{character}" for character in "&%$#_{}"}
    names = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "|": "bar", "<": "less", ">": "greater"}
    symbols = {character: rf"\text{name}{{}}" for character, name in names.items()}
    symbols |= {"±": r"$\pm$", MISSING: "---", "[": "{[}"}  # a line that begins with [ would be an option of the last
    return text.translate(str.maketrans(escaped | symbols))
