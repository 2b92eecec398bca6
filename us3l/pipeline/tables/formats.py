"""The texts of a table: Markdown, CSV, LaTeX, HTML, and the metrics that DVC compares.

Rows are runs; columns are widths, then published figures, then the cost of training.
"""

from collections.abc import Iterable

import pandas as pd

from us3l.params.study import Published
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.tables.cells import Cell
from us3l.pipeline.tables.latex import latex_macros, latex_table
from us3l.pipeline.tables.metrics import metrics
from us3l.pipeline.tables.page import page
from us3l.pipeline.tables.training_cost import TrainingCost, training_cost

MISSING = "—"
WILSON = "Wilson's 95% interval over the test images in brackets"
OURS, PUBLISHED, TRAINING = "Here", "Published", "Training"


def texts(table: TablePlan, cells: list[Cell]) -> dict[str, str]:
    """Return the table in every format, by suffix."""
    shown, about = _shown(table, cells), caption(table, cells)
    return {
        "md": _markdown(table, shown, about),
        "csv": _figures(table, cells).to_csv(index=False, lineterminator="\n"),
        "tex": latex_table(table, shown, cells, about),
        "macros.tex": latex_macros(table, cells, [cell_text(cell) for cell in cells]),
        "html": page(table, _rows(table, cells), _titles(shown), shown.to_numpy().tolist(), about),
        "metrics.yaml": metrics(cells),
    }


def caption(table: TablePlan, cells: list[Cell]) -> str:
    """Describe the cells: the protocols, the number of seeds, and the sources of published figures."""
    protocols = f"{'protocol' if len(table.protocols) == 1 else 'protocols'} {', '.join(table.protocols)}"
    over_seeds = _about_seeds(sorted({len(cell.values) for cell in cells if cell.values}))
    missing = f"; {MISSING}: no result" if any(not cell.values for cell in cells) else ""
    published = "; ".join(f"[{number}] {source}" for number, source in enumerate(_sources(cells), 1))
    cost = " Training: all of a row's trainings, mean over seeds." if table.table.training_cost else ""
    return (
        f"{table.measure} ({protocols}): {over_seeds}{missing}.{f' Published: {published}.' if published else ''}{cost}"
    )


def _about_seeds(counts: list[int]) -> str:
    """Describe a cell's number and interval, where cells have these numbers of seeds; rising."""
    if counts == [1]:
        return f"one seed, with {WILSON}; it does not show how far other seeds would differ"
    n = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    single = f"; of one seed, {WILSON}" if counts[:1] == [1] else ""
    return f"mean ± half of the 95% interval (Student's t) over seeds, n = {n}{single}"


def _figures(table: TablePlan, cells: list[Cell]) -> pd.DataFrame:
    """Build one row for each cell, with unrounded numbers; the mean of an empty cell is missing."""
    frame = pd.DataFrame(
        {
            "row": [cell.place.row.label for cell in cells],
            "width": [cell.place.width for cell in cells],
            "mean": pd.Series([cell.mean for cell in cells], dtype=float),
            "ci95": pd.Series([cell.ci95 for cell in cells], dtype=float),
            "n": [len(cell.values) for cell in cells],
            "planned": [cell.planned for cell in cells],
            "wilson_low": pd.Series([cell.wilson and cell.wilson[0] for cell in cells], dtype=float),
            "wilson_high": pd.Series([cell.wilson and cell.wilson[1] for cell in cells], dtype=float),
            "macs": pd.Series([cell.of_network("macs") for cell in cells], dtype="Int64"),
            "parameters": pd.Series([cell.of_network("parameters") for cell in cells], dtype="Int64"),
        }
    )
    if table.table.shows_published:
        known = [_published(cell) for cell in cells]
        frame["published"] = pd.Series([figure.top1 if figure else None for figure in known], dtype=float)
        frame["published_source"] = [figure.source if figure else None for figure in known]
    if table.table.training_cost:
        costs = [cost for row, cost in zip(_rows(table, cells), _costs(table, cells), strict=True) for _ in row]
        for name in ("hours", "core_hours", "gpu_hours"):
            frame[f"training_{name}"] = pd.Series([cost and getattr(cost, name) for cost in costs], dtype=float)
    return frame


def _shown(table: TablePlan, cells: list[Cell]) -> pd.DataFrame:
    """Build the table as a reader sees it: a row for each label, text in the cells, columns in groups."""
    sources, rows = _sources(cells), _rows(table, cells)
    columns = [(OURS, width) for width in _width_titles(table)]
    lines = [[cell_text(cell) for cell in row] for row in rows]
    if table.table.shows_published:
        columns += [(PUBLISHED, width) for width in _width_titles(table)]
        for line, row in zip(lines, rows, strict=True):
            line += [_published_text(_published(cell), sources) for cell in row]
    if table.table.training_cost:
        costs = _costs(table, cells)
        on_gpus = any(cost.gpu_hours for cost in costs if cost)
        columns += [(TRAINING, "hours"), (TRAINING, "GPU-hours" if on_gpus else "core-hours")]
        for line, cost in zip(lines, costs, strict=True):
            line += _cost_texts(cost, on_gpus)
    labels = [row.label for row in table.table.rows]
    return pd.DataFrame(lines, index=labels, columns=pd.MultiIndex.from_tuples(columns))


def _markdown(table: TablePlan, shown: pd.DataFrame, about: str) -> str:
    titles = _titles(shown)
    plain = shown.set_axis(titles, axis=1).rename(index=lambda label: label.replace("|", r"\|"))
    alignment = ("left", *["right"] * len(titles))
    return f"{table.table.title}\n\n{plain.to_markdown(disable_numparse=True, colalign=alignment)}\n\n{about}\n"


def _titles(shown: pd.DataFrame) -> list[str]:
    """Name the columns of a table."""
    levels = (shown.columns.get_level_values(level) for level in (0, 1))
    return [title if group == OURS else f"{title}, {group.lower()}" for group, title in zip(*levels, strict=True)]


def _width_titles(table: TablePlan) -> list[str]:
    return [f"{width:g}x" for width in table.widths]


def _rows(table: TablePlan, cells: list[Cell]) -> list[list[Cell]]:
    columns = len(table.widths)
    return [cells[first : first + columns] for first in range(0, len(cells), columns)]


def _costs(table: TablePlan, cells: list[Cell]) -> list[TrainingCost | None]:
    return [training_cost(row) for row in _rows(table, cells)]


def _published(cell: Cell) -> Published | None:
    return cell.place.row.published.get(cell.place.width)


def _sources(cells: Iterable[Cell]) -> list[str]:
    """List the sources of published figures, in the order of the table."""
    return list(dict.fromkeys(figure.source for cell in cells if (figure := _published(cell))))


def cell_text(cell: Cell) -> str:
    if cell.mean is None:
        return MISSING
    interval = "" if cell.ci95 is None else f" ± {cell.ci95:.1f}"
    if cell.wilson:
        interval = " [{:.1f}, {:.1f}]".format(*cell.wilson)
    partial = f" (n={len(cell.values)} of {cell.planned})" if len(cell.values) < cell.planned else ""
    return f"{cell.mean:.1f}{interval}{partial}"


def _published_text(published: Published | None, sources: list[str]) -> str:
    """Format a published figure, with at least one digit after the point, and the number of its source."""
    if published is None:
        return ""
    return f"{max(f'{published.top1:.1f}', f'{published.top1:g}', key=len)} [{1 + sources.index(published.source)}]"


def _cost_texts(cost: TrainingCost | None, on_gpus: bool) -> list[str]:
    if cost is None:
        return [MISSING, MISSING]
    return [f"{hours:.3g}" for hours in (cost.hours, cost.gpu_hours if on_gpus else cost.core_hours)]
