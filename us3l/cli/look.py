"""Commands that show what there is, what runs, and where numbers come from; they change nothing."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from us3l.cli.application import app
from us3l.cli.arguments import PARAMS, ParamsFile, Runs
from us3l.cli.plans import load_plan
from us3l.utils.extras import needs

command = partial(app.command, rich_help_panel="Look")


@command()
def plan(
    params: ParamsFile = PARAMS,
    study: Annotated[str | None, typer.Option(help="This study, built or not.")] = None,
    cost: Annotated[bool, typer.Option("--cost", help="List the jobs to do, with hours and GPU-hours.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write results/plan.json, which DVC reads.")] = False,
    show_run: Annotated[
        str | None, typer.Option("--show", metavar="STUDY/RUN", help="Print one run with all defaults written out.")
    ] = None,
) -> None:
    """Check the params file, and list what it makes and which jobs are still to do."""
    from us3l.pipeline.dvc import write_plan
    from us3l.pipeline.listing import show, show_costs, show_run_in_full

    expanded = load_plan(params)
    if show_run:
        show_run_in_full(expanded, show_run)
        return
    if write:
        write_plan(expanded)
    (show_costs if cost else show)(expanded, study)


@command()
def status(
    params: ParamsFile = PARAMS,
    follow: Annotated[bool, typer.Option("--follow", help="Show it again and again, until Ctrl-C.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Show the jobs that run, wait or were broken off, on all hosts that share this folder."""
    from us3l.pipeline.watching.status import show_status

    show_status(load_plan(params), runs, follow)


@command()
@needs("train")
def show(
    cell: Annotated[str, typer.Argument(metavar="[STUDY/]TABLE:ROW:COLUMN", help="A cell, as `us3l verify` names it.")],
    params: ParamsFile = PARAMS,
) -> None:
    """Print where a number in a table comes from: seeds, files, commit, hours, and how to derive it again."""
    from us3l.pipeline.show import show_cell

    show_cell(load_plan(params), cell)


@command()
def why(file: Annotated[Path, typer.Argument(help="A file that a stage made.")], params: ParamsFile = PARAMS) -> None:
    """Print what has changed since a file was made, and what would therefore run again."""
    from us3l.pipeline.why import explain

    explain(load_plan(params), file)


@command("list")
def list_names(
    kind: Annotated[Literal["backbones", "losses", "methods", "studies", "protocols"], typer.Argument()],
    params: ParamsFile = PARAMS,
) -> None:
    """List the names that the params file may use."""
    from us3l.pipeline.names import show_names

    show_names(kind, params)
