"""The command line, with a module for each group of commands. A user's mistake ends in one sentence and exit code 2."""

import atexit
import gc
import sys
from importlib import import_module

from us3l.cli.application import app
from us3l.utils.errors import UserError, about_the_machine

for group in ("make", "look", "check", "ship", "share", "tools"):  # in the order of --help
    import_module(f"us3l.cli.{group}")


def main() -> None:
    """Run a command; a user's mistake or an interruption ends in one sentence."""
    gc.set_threshold(100_000)  # importing PyTorch creates half a million objects, and no garbage
    atexit.register(gc.freeze)  # so that the end of the process does not collect garbage, either
    try:
        app(prog_name="us3l")
    except UserError as error:
        print(f"us3l: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (OSError, UnicodeEncodeError) as error:
        print(f"us3l: {about_the_machine(error)}", file=sys.stderr)
        sys.exit(UserError.exit_code)
    finally:
        sys.stdout.flush()
