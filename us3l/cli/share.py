"""Commands that carry data and weights between machines, by a remote of DVC."""

from functools import partial
from typing import Annotated

import typer

from us3l.cli.application import app
from us3l.cli.arguments import PARAMS, ParamsFile
from us3l.cli.plans import load_plan
from us3l.utils.extras import needs

command = partial(app.command, rich_help_panel="Share")

Study = Annotated[str | None, typer.Argument(help="A study of the params file; all to build by default.")]
RemoteName = Annotated[str | None, typer.Option("--remote", help="A remote of DVC; the default one by default.")]


@command()
@needs("train")
@needs("workflow")
def fetch(study: Study = None, remote: RemoteName = None, params: ParamsFile = PARAMS) -> None:
    """Bring data and weights from a remote, all of them whole or none, and verify; exit codes as of `us3l verify`."""
    from us3l.pipeline.storage.exchange import fetch

    plan = load_plan(params)
    raise typer.Exit(fetch(plan, [study] if study else plan.build, remote))


@command()
@needs("train")
@needs("workflow")
def publish(
    study: Study = None,
    remote: RemoteName = None,
    read_back: Annotated[
        bool, typer.Option("--read-back", help="Read what is there already, too, and replace what is damaged.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Verify files, and copy data and weights to a remote, from which `us3l fetch` brings them."""
    from us3l.pipeline.storage.exchange import publish

    plan = load_plan(params)
    publish(plan, [study] if study else plan.build, remote, read_back)
