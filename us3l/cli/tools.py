"""Commands for Snakemake, DVC and editors."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from us3l.cli.application import app
from us3l.cli.arguments import PARAMS, ParamsFile
from us3l.cli.plans import load_plan
from us3l.utils.extras import needs

command = partial(app.command, rich_help_panel="For other tools")


@command()
def dvc(params: ParamsFile = PARAMS) -> None:
    """Write dvc.yaml: the stages of the studies that the params file builds."""
    from us3l.pipeline.dvc_file import DVC_FILE, write_dvc_file

    changed = write_dvc_file(load_plan(params))
    print(f"{DVC_FILE}: {'written' if changed else 'has all stages already'}")


@command()
@needs("workflow")
def commit(params: ParamsFile = PARAMS) -> None:
    """Record results in DVC; Snakemake calls this at its end, with the files that it made on standard input."""
    from us3l.pipeline.dvc import commit

    commit(load_plan(params), () if sys.stdin.isatty() else (line.rstrip("\n") for line in sys.stdin))


@command()
@needs("workflow")
def make(stage: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")], params: ParamsFile = PARAMS) -> None:
    """Have Snakemake make the files of one stage of dvc.yaml; DVC calls this."""
    from us3l.pipeline.dvc import make

    make(load_plan(params), stage)


@command()
def schema() -> None:
    """Write params.schema.json, for the completion of params files in editors, and docs/params.md, on each key."""
    from us3l.params.documentation import params_documentation
    from us3l.params.json_schema import params_schema_text
    from us3l.utils.atomic import atomic_write, require_folder

    require_folder(Path("docs"), "run the command at the top of this project's repository")
    texts = {
        Path("params.schema.json"): params_schema_text(),
        Path("docs", "params.md"): params_documentation(),
    }
    for path, text in texts.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
