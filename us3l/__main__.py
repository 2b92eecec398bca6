"""`us3l`, which is `python -m us3l`: the command line, in a fork of a workflow's server where there is one."""

import os
import sys

from us3l.utils import fork_server, process


def main() -> None:
    """Run the command line; its end is this process's end."""
    process.set_up()
    if os.environ.get(fork_server.ADDRESS) and (code := fork_server.run(sys.argv[1:])) is not None:
        sys.exit(code)
    from us3l.cli import main

    main()


if __name__ == "__main__":
    main()
