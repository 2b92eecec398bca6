r"""A table in LaTeX: a booktabs table, and a macro for each cell, so that a manuscript repeats no number by hand."""

from itertools import accumulate, groupby, pairwise

import numpy as np
import pandas as pd

from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.tables.cells import Cell

BOLD = "textbf:--rwrap"  # as pandas writes \textbf{...}
ABOUT_BOLD = "Bold: the best of its column, where no other interval there reaches its own."
_NAMES = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "|": "bar", "<": "less", ">": "greater"}
LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: rf"\text{name}{{}}" for character, name in _NAMES.items()},
        **{"±": r"$\pm$", "—": "---", "[": "{[}"},
    }
)
DEFINITIONS = r"""% \cellof{STUDY/TABLE}{ROW}{WIDTH} prints a cell as its table does; \cellof[mean] prints its mean, and
% likewise [low], [high] and [n].
% From low to high is the 95% interval: Student's t over n seeds; of one seed, Wilson's over the test images.
\makeatletter
\providecommand{\cellof}[4][text]{%
  \@ifundefined{us3l/\detokenize{#2/#3/#4/#1}}%
    {\PackageError{us3l}{No table has \detokenize{#2, #3, #4, #1}}{The file of macros names the cells that there are.}}%
    {\@nameuse{us3l/\detokenize{#2/#3/#4/#1}}}}
\providecommand{\definecell}[5]{\expandafter\def\csname us3l/\detokenize{#1/#2/#3/#4}\endcsname{#5}}
\makeatother
"""


def latex_table(table: TablePlan, shown: pd.DataFrame, cells: list[Cell], about: str) -> str:
    """Format a booktabs table; shown: its texts, of which the first columns are the cells', row by row."""
    groups = [len([*columns]) for _, columns in groupby(shown.columns, key=lambda column: column[0])]
    if len(groups) == 1:
        shown = shown.droplevel(0, axis=1)
    styles = _styles(table, cells, len(shown.columns))
    is_any_bold = any(BOLD in row for row in styles)
    styled = shown.style.format(_escaped).format_index(_escaped, axis=0).format_index(_escaped, axis=1)
    text = styled.apply(lambda _: np.array(styles), axis=None).to_latex(
        hrules=True,
        column_format="l" + "r" * len(shown.columns),
        multicol_align="c",
        position_float="centering",
        caption=" ".join([f"{_escaped(table.table.title)}. {_escaped(about)}", *[ABOUT_BOLD] * is_any_bold]),
        label=f"tab:{table.study}-{table.name}",
    )
    if len(groups) == 1:
        return text
    header, line, rest = text.partition(r"\multicolumn")
    titles, _, rest = rest.partition("\n")
    return "".join([header, line, titles, "\n", _rules(groups), "\n", rest])


def latex_macros(table: TablePlan, cells: list[Cell], texts: list[str]) -> str:
    """Define a macro for each cell, and for its mean, interval and number of seeds; texts: as the table shows them."""
    name = f"{table.study}/{table.name}"
    lines = []
    for cell, text in zip(cells, texts, strict=True):
        parts = {"text": text}
        if cell.mean is not None and (interval := cell.interval):
            numbers = {"mean": cell.mean, "low": interval[0], "high": interval[1]}
            parts |= {part: f"{number:.1f}" for part, number in numbers.items()} | {"n": str(len(cell.values))}
        key = f"{{{name}}}{{{_escaped(cell.place.row.label)}}}{{{cell.place.width:g}x}}"
        lines += [rf"\definecell{key}{{{part}}}{{{_escaped(value)}}}" + "\n" for part, value in parts.items()]
    return f"% The cells of {table.file('json')}.\n{DEFINITIONS}{''.join(lines)}"


def _styles(table: TablePlan, cells: list[Cell], columns: int) -> list[list[str]]:
    """Return a style for each text of a table with so many columns: bold for the best cell of each width."""
    intervals, widths = [cell.interval for cell in cells], len(table.widths)
    rows = range(len(cells) // widths)
    is_best = [[_is_best(row, intervals[place::widths]) for place in range(widths)] for row in rows]
    return [[BOLD if best else "" for best in row] + [""] * (columns - widths) for row in is_best]


def _is_best(row: int, column: list[tuple[float, float] | None]) -> bool:
    """Tell whether the interval of a row lies above those of all other rows, of which at least one has a result."""
    own, others = column[row], [other for other in column[:row] + column[row + 1 :] if other]
    return own is not None and bool(others) and all(own[0] > high for _, high in others)


def _rules(groups: list[int]) -> str:
    """Draw the rules under the titles of groups of so many columns, which pandas leaves out."""
    ends = [*accumulate(groups, initial=1)]
    return " ".join(rf"\cmidrule(lr){{{before + 1}-{end}}}" for before, end in pairwise(ends))


def _escaped(text: object) -> str:
    """Escape text for LaTeX, which would read a [ at the beginning of a line as an option of the line before."""
    return str(text).translate(LATEX)
