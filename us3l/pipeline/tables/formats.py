"""A table as text: Markdown, CSV and LaTeX. Rows are runs, columns are widths, beside them published figures."""

import csv
import io

from us3l.params.study import Row
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.tables.cells import Cell, Rows

MISSING = "—"


def texts(plan: TablePlan, rows: Rows) -> dict[str, str]:
    """The table as Markdown, CSV and LaTeX, by suffix."""
    return {"md": markdown(plan, rows), "csv": comma_separated(plan, rows), "tex": latex(plan, rows)}


def markdown(plan: TablePlan, rows: Rows) -> str:
    titles = [*_columns(plan), *(f"{column}, published" for column in _columns(plan) if plan.table.shows_published)]
    lines = [["", *titles], ["---", *["---:"] * len(titles)]]
    lines += [[row.label.replace("|", r"\|"), *cells] for row, cells in _body(plan, rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{plan.table.title}\n\n{table}\n\n{caption(plan, rows)}\n"


def comma_separated(plan: TablePlan, rows: Rows) -> str:
    """One line a cell, numbers in full; an empty cell has an empty mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = ["published", "published_source"] if plan.table.shows_published else []
    writer.writerow(["row", "width", "mean", "half_width", "n", "planned", *more])
    for row, cells in zip(plan.table.rows, rows, strict=True):
        for width, cell in zip(plan.widths, cells, strict=True):
            known = row.published.get(width)
            figures = [known.top1, known.source] if known else [None] * len(more)
            writer.writerow([row.label, width, cell.mean, cell.half_width, len(cell.values), cell.planned, *figures])
    return text.getvalue()


def latex(plan: TablePlan, rows: Rows) -> str:
    """A booktabs table."""
    body = [" & ".join([_escape(row.label), *map(_escape, cells)]) for row, cells in _body(plan, rows)]
    columns = _columns(plan) * (2 if plan.table.shows_published else 1)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escape(plan.table.title)}. {_escape(caption(plan, rows))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *(_groups(len(plan.widths)) if plan.table.shows_published else []),
        " & ".join(["", *columns]) + r" \\",
        r"\midrule",
        *(line + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _groups(widths: int) -> list[str]:
    """The line above the columns, over those of this project and those of others."""
    titles = [rf"\multicolumn{{{widths}}}{{c}}{{{title}}}" for title in ("Here", "Published")]
    rules = [rf"\cmidrule(lr){{{first}-{first + widths - 1}}}" for first in (2, 2 + widths)]
    return [" & ".join(["", *titles]) + r" \\", " ".join(rules)]


def caption(plan: TablePlan, rows: Rows) -> str:
    """What the cells are: measured how, over how many seeds, and where published figures are from."""
    protocols = f"{'protocol' if len(plan.protocols) == 1 else 'protocols'} {', '.join(plan.protocols)}"
    counts = sorted({len(cell.values) for line in rows for cell in line if cell.values})
    n = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    missing = f"; {MISSING}: no result" if any(not cell.values for line in rows for cell in line) else ""
    published = "; ".join(f"[{number}] {source}" for number, source in enumerate(_published_in(plan), 1))
    return (
        f"{plan.measure} ({protocols}): mean ± half of the 95% interval (Student's t) over seeds, n = {n}"
        f"{missing}.{f' Published: {published}.' if published else ''}"
    )


def _published_in(plan: TablePlan) -> list[str]:
    """The sources of published figures, in the order of the table."""
    figures = [row.published.get(width) for row in plan.table.rows for width in plan.widths]
    return list(dict.fromkeys(figure.source for figure in figures if figure))


def _body(plan: TablePlan, rows: Rows) -> list[tuple[Row, list[str]]]:
    """Each row of the table with the text of its cells."""
    sources, body = _published_in(plan), []
    for row, cells in zip(plan.table.rows, rows, strict=True):
        known = [row.published.get(width) for width in plan.widths] if plan.table.shows_published else []
        figures = [f"{_figure(each.top1)} [{1 + sources.index(each.source)}]" if each else "" for each in known]
        body.append((row, [*map(_text, cells), *figures]))
    return body


def _text(cell: Cell) -> str:
    if cell.mean is None:
        return MISSING
    spread = "" if cell.half_width is None else f" ± {cell.half_width:.1f}"
    partial = f" (n={len(cell.values)} of {cell.planned})" if len(cell.values) < cell.planned else ""
    return f"{cell.mean:.1f}{spread}{partial}"


def _figure(top1: float) -> str:
    """As it was published, with one digit after the point at least."""
    return max(f"{top1:.1f}", f"{top1:g}", key=len)


def _columns(plan: TablePlan) -> list[str]:
    return [f"{width:g}x" for width in plan.widths]


def _escape(text: str) -> str:
    escaped = {character: f"\\{character}" for character in "&%$#_{}"}
    names = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "|": "bar", "<": "less", ">": "greater"}
    symbols = {character: rf"\text{name}{{}}" for character, name in names.items()}
    symbols |= {"±": r"$\pm$", MISSING: "---", "[": "{[}"}  # a line that begins with [ would be an option of the last
    return text.translate(str.maketrans(escaped | symbols))
