"""Tables: rows are runs, columns are widths, a cell is the mean over seeds with its 95% interval.

A cell without evaluations is empty and marked; one with fewer seeds than planned says so. Nothing here needs PyTorch.
"""

import csv
import io
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from us3l.errors import UserError
from us3l.files import replacing
from us3l.plan import RunPlan, TablePlan
from us3l.provenance import fingerprint, identify, require_params
from us3l.records import read_record, write_record

MISSING = "—"

Records = dict[Path, dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """One evaluation: its seed, its top-1 accuracy in percent, and its record and those of what it came from."""

    seed: int
    top1: float
    records: Records


@dataclass(frozen=True)
class Cell:
    """The evaluations of one run at one width; `planned` is how many seeds there should be."""

    sources: list[Source]
    planned: int

    @property
    def values(self) -> list[float]:
        return [source.top1 for source in self.sources]

    @property
    def records(self) -> Records:
        return {path: record for source in self.sources for path, record in source.records.items()}

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
    """Write the table as Markdown, CSV, LaTeX and, with the sources of every cell, JSON.

    Raises UserError where an evaluation, or what it came from, was made with other params than those of today.
    """
    rows = read_rows(plan)
    _require_todays_params(plan, rows)
    for suffix, text in texts(plan, rows).items():
        with replacing(plan.file(suffix)) as temporary:
            temporary.write_text(text)
    write_record(plan.file("json"), with_sources(plan, rows))


def texts(plan: TablePlan, rows: Rows) -> dict[str, str]:
    """The table as Markdown, CSV and LaTeX, by suffix."""
    return {"md": markdown(plan, rows), "csv": comma_separated(plan, rows), "tex": latex(plan, rows)}


def read_rows(plan: TablePlan) -> Rows:
    """The cells of each row; an evaluation that is absent leaves its seed out. Raises UserError for a damaged one."""
    rows: Rows = [[] for _ in plan.table.rows]
    upstream: Records = {}
    for index, width, run in plan.cells():
        seeds = run.seeds if run else ()
        there = [seed for seed in seeds if run.evaluation(seed, width).is_file()]
        rows[index].append(Cell([_source(run, seed, width, upstream) for seed in there], len(seeds)))
    return rows


def _source(run: RunPlan, seed: int, width: float, upstream: Records) -> Source:
    """An evaluation with the records of what it came from, which `upstream` keeps for the other widths."""
    above = (run.training(seed), run.calibration(seed))
    for path in above:
        if path not in upstream and path.is_file():
            upstream[path] = read_record(path)
    path = run.evaluation(seed, width)
    evaluation = read_record(path)
    if (evaluation["seed"], evaluation["width"]) != (seed, width):
        found = f"the evaluation of seed {evaluation['seed']} at width {evaluation['width']}"
        raise UserError(f"{path}: {found} under another's name; run `us3l linear {run.study} {run.name} {seed}` again")
    known = {each: upstream[each] for each in above if each in upstream}
    return Source(seed, evaluation["top1"], {path: evaluation, **known})


def _require_todays_params(plan: TablePlan, rows: Rows) -> None:
    cells = [cell for line in rows for cell in line]
    for (_, _, run), cell in zip(plan.cells(), cells, strict=True):
        for source in cell.sources:
            for path, record in source.records.items():
                again = f"run `us3l {record['stage']} {run.study} {run.name} {source.seed}`"
                require_params(path, record, run.recipe(record["stage"]), again)


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
    """The table with, for every cell, its values and the files they came from; `records` has what those say."""
    records = {path: record for line in rows for cell in line for path, record in cell.records.items()}
    seals = {str(path): record["seal"] for path, record in sorted(records.items())}
    identity = identify("table", plan.recipe, made_from=seals)
    cells = [
        {
            "row": row.label,
            "width": width,
            "mean": cell.mean,
            "half_width": cell.half_width,
            "n": len(cell.values),
            "planned": cell.planned,
            "values": cell.values,
            **_compute(cell.records),
            "sources": [
                {"seed": source.seed, "top1": source.top1, "files": [str(path) for path in source.records]}
                for source in cell.sources
            ],
        }
        for row, line in zip(plan.table.rows, rows, strict=True)
        for width, cell in zip(plan.widths, line, strict=True)
    ]
    return {
        "title": plan.table.title,
        "fingerprint": fingerprint(identity),
        **identity,
        **_compute(records),
        "cells": cells,
        "records": {str(path): _in_short(record) for path, record in sorted(records.items())},
    }


def _compute(records: Records) -> dict[str, float]:
    """What it took to make them: wall-clock hours of computing, and hours on GPUs."""
    hours = sum(record["seconds"] for record in records.values()) / 3600
    return {"hours": round(hours, 6), "gpu_hours": round(sum(record["gpu_hours"] for record in records.values()), 6)}


def _in_short(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its course and its products; its code as one hash."""
    kept = {key: value for key, value in record.items() if key not in ("epochs", "networks")}
    return kept | {"code": fingerprint(record["code"])}


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
