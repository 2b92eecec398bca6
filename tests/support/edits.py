"""Edits of modules, one at a time: of a copy of the package, for programs that ask what notices them."""

from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent.parent / "us3l"
EQUIVALENT = "not a change: "  # the beginning of a note


class Edit(NamedTuple):
    """An edit of a module, a path in us3l; run: the variant whose probe judges it; note: why it is missed."""

    module: str
    old: str
    new: str
    run: str = ""
    note: str = ""


def apply(edit: Edit, package: Path) -> None:
    """Edit a module of a package. Raises ValueError where the old text does not occur exactly once."""
    path = package / edit.module
    text = path.read_text()
    if (found := text.count(edit.old)) != 1:
        raise ValueError(f"{edit.module} has {found} times, and not once: {edit.old}")
    path.unlink()  # it may be linked to the module of another copy
    path.write_text(text.replace(edit.old, edit.new))


def as_code(text: str) -> str:
    """Text of a module in a cell of a Markdown table."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|") if text.strip() else "–"
