"""Commands that take networks out of the project."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from us3l.cli.application import app
from us3l.cli.arguments import PARAMS, Device, Force, Gpus, ParamsFile, RunName, StudyName, Threads
from us3l.cli.plans import deployed_run, finish, is_made, load_plan, planned_export, run_address
from us3l.utils.errors import UserError

if TYPE_CHECKING:
    from us3l.pipeline.plan.export import ExportJob
    from us3l.pipeline.plan.plan import Plan

command = partial(app.command, rich_help_panel="Ship")


@command()
def export(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY RUN SEED | STUDY EXPORT SEED | FILE",
            help="A run, an export of the params file, or a network's file.",
        ),
    ],
    width: Annotated[list[float] | None, typer.Option(help="Any trained width; by default those of the study.")] = None,
    head: Annotated[bool, typer.Option("--head", help="With the classifier that the evaluation trained.")] = False,
    formats: Annotated[
        str | None, typer.Option(help="Besides model.py and safetensors; by default onnx,pt2.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a folder of each width; by default in exports/.")] = None,
    params: ParamsFile = PARAMS,
    device: Device = "auto",
    gpus: Gpus = 1,
    threads: Threads = 1,
    force: Force = False,
) -> None:
    """Write networks as folders that run without us3l, and compare what they compute; exit code 1 if one differs."""
    from us3l.pipeline.export import export_file, export_run
    from us3l.utils.devices import leased_device

    chosen = [name for name in (formats if formats is not None else "onnx,pt2").split(",") if name]
    if len(source) == 1 and not width:
        with leased_device("cpu", 0, threads):
            holds = export_file(Path(source[0]), chosen, out)
    else:
        plan, address = load_plan(params), run_address(source)
        if job := planned_export(plan, *address):
            if width or head or formats is not None or out:
                what = "params.yaml says its widths, head, formats and place; leave these options out"
                raise UserError(f"the export {' '.join(source[:2])}: {what}, or name a run")
            holds = is_made(plan, job, force) or _make_planned(plan, job, device, gpus, threads)
        else:
            with leased_device(device, gpus, threads) as where:
                holds = export_run(deployed_run(plan, *address, where), width or [], head, chosen, out)
    if not holds:
        raise typer.Exit(1)


def _make_planned(plan: "Plan", job: "ExportJob", device: str, gpus: int, threads: int) -> bool:
    """Make an export of the params file, and tell whether all of its files hold."""
    from us3l.pipeline.stages.export import make_export
    from us3l.utils.devices import leased_device

    with leased_device(device, gpus, threads) as where:
        holds = make_export(job, plan, where)
    if holds:
        finish(job)
    return holds


@command()
def slices(
    study: StudyName,
    run: RunName,
    seed: Annotated[int, typer.Argument(help="One of the study's seeds.")] = 0,
    widths: Annotated[str | None, typer.Option(help="FIRST:LAST:STEP, or widths with commas.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for slices.json and .csv; by default in exports/.")] = None,
    params: ParamsFile = PARAMS,
    threads: Threads = 1,
) -> None:
    """Measure the network of each width on this machine: channels, parameters, size, accuracy, milliseconds."""
    from us3l.pipeline.slices import show_slices
    from us3l.utils.devices import leased_device
    from us3l.utils.width_list import parse_widths

    chosen = parse_widths(widths) if widths else []
    with leased_device("cpu", 0, threads) as where:
        show_slices(deployed_run(load_plan(params), study, run, seed, where), chosen, out)


@command()
def choose(
    study: StudyName,
    run: RunName,
    seed: Annotated[int, typer.Argument(help="One of the study's seeds.")] = 0,
    latency: Annotated[str | None, typer.Option(help="Most time of an image in PyTorch, such as 5ms.")] = None,
    macs: Annotated[str | None, typer.Option(help="Most multiply-accumulates of an image, such as 50M.")] = None,
    params_count: Annotated[str | None, typer.Option("--parameters", help="Most parameters, such as 1M.")] = None,
    size: Annotated[str | None, typer.Option(help="Largest model.safetensors, such as 4MB.")] = None,
    params: ParamsFile = PARAMS,
    threads: Threads = 1,
) -> None:
    """Find the widest network that fits a budget, by bisection over the trained range."""
    from us3l.pipeline.choose import choose, parse_budget
    from us3l.utils.devices import leased_device

    budget = parse_budget(latency=latency, macs=macs, parameters=params_count, size=size)
    with leased_device("cpu", 0, threads) as where:
        choose(deployed_run(load_plan(params), study, run, seed, where), budget)
