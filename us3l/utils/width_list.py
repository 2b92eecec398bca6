"""A list of widths, as the command line takes it."""

import math

from us3l.utils.errors import UserError

MOST_WIDTHS = 1000


def parse_widths(text: str) -> list[float]:
    """Read `0.25:1.0:0.05`, first, last and step, or `0.25,0.5`. Raises UserError for any other text."""
    try:
        if ":" not in text:
            return [float(each) for each in text.split(",")]
        first, last, step = (float(each) for each in text.split(":"))
        count = math.floor((last - first) / step + 1e-9) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"--widths {text}: give FIRST:LAST:STEP, as in 0.25:1.0:0.05, or widths with commas") from None
    if not 0 < count <= MOST_WIDTHS:
        raise UserError(f"--widths {text}: {count:,} widths; give a step for 1 to {MOST_WIDTHS:,}")
    return [round(first + number * step, 6) for number in range(count)]
