"""The text of a table in Markdown, CSV and LaTeX: rows are runs, columns are widths, then published figures."""

from collections.abc import Iterable

import pandas as pd

from us3l.params.study import Published
from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.tables.cells import Cell

MISSING = "—"
OURS, PUBLISHED = "Here", "Published"
_NAMES = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "|": "bar", "<": "less", ">": "greater"}
LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: rf"\text{name}{{}}" for character, name in _NAMES.items()},
        **{"±": r"$\pm$", MISSING: "---", "[": "{[}"},
    }
)


def texts(table: TablePlan, cells: list[Cell]) -> dict[str, str]:
    """Return the table as Markdown, CSV and LaTeX, by suffix."""
    shown, about = _shown(table, cells), caption(table, cells)
    return {
        "md": _markdown(table, shown, about),
        "csv": _figures(table, cells).to_csv(index=False, lineterminator="\n"),
        "tex": _latex(table, shown, about),
    }


def caption(table: TablePlan, cells: list[Cell]) -> str:
    """Describe the cells: the protocols, the number of seeds, and the sources of published figures."""
    protocols = f"{'protocol' if len(table.protocols) == 1 else 'protocols'} {', '.join(table.protocols)}"
    counts = sorted({len(cell.values) for cell in cells if cell.values})
    n = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    missing = f"; {MISSING}: no result" if any(not cell.values for cell in cells) else ""
    published = "; ".join(f"[{number}] {source}" for number, source in enumerate(_sources(cells), 1))
    return (
        f"{table.measure} ({protocols}): mean ± half of the 95% interval (Student's t) over seeds, n = {n}"
        f"{missing}.{f' Published: {published}.' if published else ''}"
    )


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
        }
    )
    if table.table.shows_published:
        known = [_published(cell) for cell in cells]
        frame["published"] = pd.Series([figure.top1 if figure else None for figure in known], dtype=float)
        frame["published_source"] = [figure.source if figure else None for figure in known]
    return frame


def _shown(table: TablePlan, cells: list[Cell]) -> pd.DataFrame:
    """Build the table as a reader sees it: a row for each label, text in the cells, columns in groups."""
    sources, widths = _sources(cells), _width_titles(table)
    columns = [(OURS, width) for width in widths]
    lines = [[_text(cell) for cell in row] for row in _rows(table, cells)]
    if table.table.shows_published:
        columns += [(PUBLISHED, width) for width in widths]
        lines = [
            line + [_published_text(_published(cell), sources) for cell in row]
            for line, row in zip(lines, _rows(table, cells), strict=True)
        ]
    labels = [row.label for row in table.table.rows]
    return pd.DataFrame(lines, index=labels, columns=pd.MultiIndex.from_tuples(columns))


def _markdown(table: TablePlan, shown: pd.DataFrame, about: str) -> str:
    titles = _width_titles(table)
    if table.table.shows_published:
        titles += [f"{width}, published" for width in titles]
    plain = shown.set_axis(titles, axis=1).rename(index=lambda label: label.replace("|", r"\|"))
    alignment = ("left", *["right"] * len(titles))
    return f"{table.table.title}\n\n{plain.to_markdown(disable_numparse=True, colalign=alignment)}\n\n{about}\n"


def _latex(table: TablePlan, shown: pd.DataFrame, about: str) -> str:
    """Format a booktabs table."""
    if not table.table.shows_published:
        shown = shown.droplevel(0, axis=1)
    styled = shown.style.format(_escaped).format_index(_escaped, axis=0).format_index(_escaped, axis=1)
    text = styled.to_latex(
        hrules=True,
        column_format="l" + "r" * len(shown.columns),
        multicol_align="c",
        caption=f"{_escaped(table.table.title)}. {_escaped(about)}",
    )
    if not table.table.shows_published:
        return text
    header, line, rest = text.partition(r"\multicolumn")
    titles, _, rest = rest.partition("\n")
    return "".join([header, line, titles, "\n", _rules(len(table.widths)), "\n", rest])


def _rules(widths: int) -> str:
    """Draw the rules under the titles of both groups of columns, which pandas leaves out."""
    return " ".join(rf"\cmidrule(lr){{{first}-{first + widths - 1}}}" for first in (2, 2 + widths))


def _escaped(text: object) -> str:
    """Escape text for LaTeX, which would read a [ at the beginning of a line as an option of the line before."""
    return str(text).translate(LATEX)


def _width_titles(table: TablePlan) -> list[str]:
    return [f"{width:g}x" for width in table.widths]


def _rows(table: TablePlan, cells: list[Cell]) -> list[list[Cell]]:
    columns = len(table.widths)
    return [cells[first : first + columns] for first in range(0, len(cells), columns)]


def _published(cell: Cell) -> Published | None:
    return cell.place.row.published.get(cell.place.width)


def _sources(cells: Iterable[Cell]) -> list[str]:
    """List the sources of published figures, in the order of the table."""
    return list(dict.fromkeys(figure.source for cell in cells if (figure := _published(cell))))


def _text(cell: Cell) -> str:
    if cell.mean is None:
        return MISSING
    interval = "" if cell.ci95 is None else f" ± {cell.ci95:.1f}"
    partial = f" (n={len(cell.values)} of {cell.planned})" if len(cell.values) < cell.planned else ""
    return f"{cell.mean:.1f}{interval}{partial}"


def _published_text(published: Published | None, sources: list[str]) -> str:
    """Format a published figure, with at least one digit after the point, and the number of its source."""
    if published is None:
        return ""
    return f"{max(f'{published.top1:.1f}', f'{published.top1:g}', key=len)} [{1 + sources.index(published.source)}]"
