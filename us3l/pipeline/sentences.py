"""A user's mistake inside Snakemake: one sentence, as from the command line, instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from us3l.utils.errors import UserError


@contextmanager
def ends_in_a_sentence() -> Iterator[None]:
    """Print the sentence of a UserError, and exit with its code."""
    try:
        yield
    except UserError as error:
        print(f"us3l: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
