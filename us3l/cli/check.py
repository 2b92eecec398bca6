"""Commands that derive results again."""

from functools import partial
from typing import Annotated

import typer

from us3l.cli.application import app
from us3l.cli.arguments import PARAMS, ParamsFile
from us3l.cli.plans import load_plan
from us3l.utils.extras import needs

command = partial(app.command, rich_help_panel="Check")


@command()
@needs("train")
def verify(
    cells: Annotated[
        str | None, typer.Argument(metavar="[STUDY/TABLE[:ROW[:COLUMN]]]", help="All tables by default.")
    ] = None,
    level: Annotated[
        int, typer.Option(help="0 text, 1 files, 2 evaluation, 3 training: the deepest.", min=0, max=3)
    ] = 1,
    params: ParamsFile = PARAMS,
) -> None:
    """Derive the numbers of tables again, level by level; exit code 1 if one differs, 3 if not all can be checked."""
    from us3l.pipeline.verify.levels import verify
    from us3l.pipeline.verify.selection import select

    raise typer.Exit(verify(select(load_plan(params), cells), level))


@command()
@needs("train")
def requalify(
    address: Annotated[
        str | None, typer.Argument(metavar="[STUDY[/RUN]]", help="All studies to build by default.")
    ] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Keep results that only an edit of code makes out of date, if their probe, run again, gives the same numbers."""
    from us3l.pipeline.dvc import commit_to_dvc, write_plan
    from us3l.pipeline.requalify import requalify

    plan = load_plan(params)
    holds = requalify(plan, address)
    write_plan(plan)
    commit_to_dvc([])
    if not holds:
        raise typer.Exit(1)
