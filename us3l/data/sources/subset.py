"""Lists of the training images to keep, such as SimCLR's 1% and 10% of ImageNet: one image a line."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from us3l.utils.errors import UserError
from us3l.utils.reading import read_plain

MOST_BYTES = 2**26  # of a list; one of all images of ImageNet has 40 MB
MOST_LINES = 2_000_000


def read_subset(file: Path, folder: Path, images: Iterable[Path]) -> set[Path]:
    """Return the `images` that the lines of `file` name, by file name alone or by path below `folder`.

    Raises UserError for a list that is unreadable or empty, and for a name that belongs to no image or to several, or
    that an earlier line has.
    """
    named = defaultdict(list)
    for image in images:
        for name in {image.name, image.relative_to(folder).as_posix()}:
            named[name].append(image)
    lines = _read_lines(file)
    _check_known(file, folder, lines, named)
    kept: dict[Path, int] = {}
    for number, name in lines:
        if len(named[name]) > 1:
            raise UserError(
                f"{file}: line {number}: {len(named[name])} images are called {name}; name it as class/name"
            )
        image = named[name][0]
        if image in kept:
            raise UserError(f"{file}: line {number}: {name} is on line {kept[image]} already; name each image once")
        kept[image] = number
    return set(kept)


def _read_lines(file: Path) -> list[tuple[int, str]]:
    """Read the lines that are not blank, with their numbers from 1."""
    try:
        text = read_plain(file, MOST_BYTES).decode()
        if text.count("\n") > MOST_LINES:
            raise ValueError(f"it has more than {MOST_LINES} lines")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a readable list of images ({error}); correct subset in params.yaml") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{file}: the list names no images; write one a line, or leave subset out of params.yaml")
    return lines


def _check_known(file: Path, folder: Path, lines: list[tuple[int, str]], named: dict[str, list[Path]]) -> None:
    if unknown := [line for line in lines if line[1] not in named]:
        number, name = unknown[0]
        raise UserError(
            f"{file}: line {number}: no image in {folder} is called {name} "
            f"({len(unknown)} of {len(lines)} names are unknown); correct the list, or train in params.yaml"
        )
