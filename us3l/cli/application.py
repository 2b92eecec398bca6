"""The application, to which each group of commands adds its own."""

from typing import Annotated

import typer

EXAMPLES = """\
Examples:

us3l init cats --images ~/cats   makes a project that trains on a folder of images

us3l status --follow   shows how far the trainings are, on all hosts

us3l show digits/main:1:0.25x   says where a number in a table comes from
"""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, epilog=EXAMPLES, rich_markup_mode="rich")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"us3l {version('us3l')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Universally slimmable self-supervised networks: one training without labels, every width."""
