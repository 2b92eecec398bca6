"""The command line, with a command for each stage. A user's mistake ends in one sentence and exit code 2."""

import atexit
import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from us3l.utils.errors import UserError, about_the_machine
from us3l.utils.extras import needs

if TYPE_CHECKING:
    import torch

    from us3l.pipeline.deploy import DeployedRun
    from us3l.pipeline.plan.export import ExportJob
    from us3l.pipeline.plan.job import Job
    from us3l.pipeline.plan.plan import Plan
    from us3l.pipeline.plan.run import RunStage

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
StudyName = Annotated[str, typer.Argument(help="A study of the params file.")]
RunName = Annotated[str, typer.Argument(help="A run of the study.")]
Seed = Annotated[int, typer.Argument(help="One of the study's seeds.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU if one exists.")]
Gpus = Annotated[int, typer.Option(help="Maximum number of GPUs; 0 is the CPU.", min=0)]
Threads = Annotated[int, typer.Option(help="CPU threads of each process.", min=1)]
Force = Annotated[bool, typer.Option("--force", help="Make it again, even where it is up to date.")]
Runs = Annotated[Path, typer.Option(help="Folder of the states of unfinished trainings.")]

PARAMS = Path("params.yaml")


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


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; it may not exist yet.")] = Path(),
    images: Annotated[
        Path | None, typer.Option(help="A folder of class folders, or of train and test or val with class folders.")
    ] = None,
) -> None:
    """Make a project, ready for Snakemake and DVC, that trains on a folder of images; without one, on the digits."""
    from us3l.pipeline.new_project.create import create

    create(folder, images)


@app.command()
@needs("train")
def prepare(
    dataset: Annotated[str, typer.Argument(help="A data set of the params file.")],
    params: ParamsFile = PARAMS,
    force: Force = False,
) -> None:
    """Convert a data set's source to arrays, in data/<dataset>/."""
    from us3l.pipeline.plan.dataset import DOWNLOADS, PrepareJob

    plan = _plan(params)
    job = PrepareJob(plan.dataset(dataset))
    if _is_made(plan, job, force):
        return
    from us3l.pipeline.stages.prepare import prepare
    from us3l.pipeline.watching.bar import goes_on
    from us3l.pipeline.watching.job_status import job_status
    from us3l.pipeline.watching.running import tell_beginning, tell_outcome

    tell_beginning(job)
    with job_status(job, "computing"), goes_on(job.command):
        prepare(job, DOWNLOADS)
    tell_outcome(job)


@app.command()
@needs("train")
def pretrain(
    study: StudyName,
    run: RunName,
    seed: Seed,
    params: ParamsFile = PARAMS,
    device: Device = "auto",
    gpus: Gpus = 1,
    threads: Threads = 1,
    runs: Runs = Path("runs"),
    save_every: Annotated[float, typer.Option(help="Seconds between two saved states.", min=0)] = 60.0,
    force: Force = False,
) -> None:
    """Train one run with one seed; continues where it was interrupted. Starts one process for each GPU."""
    plan = _plan(params)
    job = _job(plan, study, run, seed, "pretrain")
    is_one_of_many = "WORLD_SIZE" in os.environ  # processes that start together decide together, below
    if not is_one_of_many and _is_made(plan, job, force):
        return
    from us3l.pipeline.watching.running import running

    with running(job, device, gpus, threads) as (where, status):
        from us3l.pipeline.stages.pretrain import pretrain
        from us3l.utils import distributed

        processes = distributed.process_count(where, job.run.shards)
        if processes > 1:
            status.remove()  # the first of the processes has its own
            distributed.launch(processes)
            return
        with distributed.world(where) as world:
            if not (is_one_of_many and world.any(world.is_main and _is_made(plan, job, force))):
                pretrain(job, world, runs, save_every, status)
                _finish(job)


@app.command("import")
def import_published(
    file: Annotated[Path, typer.Argument(help="A checkpoint of US3L, SlimCLR, S-Nets or US-Nets.")],
    backbone: Annotated[str, typer.Option(help="The network it holds, as in params.yaml.")],
    channels: Annotated[int, typer.Option(help="Channels of its images.", min=1)] = 3,
    widths: Annotated[
        str | None, typer.Option(help="Widths that have BatchNorms of their own, with commas, if they are unusual.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the backbone's weights here, as safetensors.")] = None,
) -> None:
    """Print what a checkpoint holds that others published, and the run of params.yaml that imports it."""
    from us3l.models.backbones.backbone import Backbone
    from us3l.models.published.summary import inspect
    from us3l.utils.atomic import require_folder
    from us3l.utils.width_list import parse_widths

    if write:
        require_folder(write.parent, "give --write a file in one that is there")
    print(inspect(file, Backbone(backbone, channels), parse_widths(widths) if widths else None, write))


@app.command()
@needs("train")
def calibrate(
    study: StudyName,
    run: RunName,
    seed: Seed,
    params: ParamsFile = PARAMS,
    device: Device = "auto",
    gpus: Gpus = 1,
    threads: Threads = 1,
    force: Force = False,
) -> None:
    """Cut a plain network of each width out of a checkpoint, and compute its BatchNorm statistics."""
    plan = _plan(params)
    job = _job(plan, study, run, seed, "calibrate")
    if _is_made(plan, job, force):
        return
    from us3l.pipeline.watching.running import running

    with running(job, device, gpus, threads) as (where, _):
        from us3l.pipeline.stages.calibrate import calibrate

        calibrate(job, where)
    _finish(job)


def _add_evaluation(kind: str, help: str) -> None:
    """Add the command of one kind of evaluation, which calls the kind's module in us3l.evaluation."""

    @app.command(kind, help=help)
    @needs("train")
    def evaluate(
        study: StudyName,
        run: RunName,
        seed: Seed,
        params: ParamsFile = PARAMS,
        device: Device = "auto",
        gpus: Gpus = 1,
        threads: Threads = 1,
        logits: Annotated[Path | None, typer.Option(help="Folder to write the test images' logits to, too.")] = None,
        force: Force = False,
    ) -> None:
        plan = _plan(params)
        job = _job(plan, study, run, seed, kind)
        if _is_made(plan, job, force):
            return
        from us3l.pipeline.code import EVALUATIONS
        from us3l.pipeline.watching.running import running

        with running(job, device, gpus, threads) as (where, _):
            from us3l.pipeline.stages.evaluate import evaluate

            evaluate(job, where, import_module(EVALUATIONS[kind]).evaluate_networks, logits)
        _finish(job)


_add_evaluation("linear", "Train a linear classifier on each width's frozen features and test it.")
_add_evaluation("features-linear", "Train a linear classifier on features that are extracted once, and test it.")
_add_evaluation("knn", "Classify test images by the training images whose features are nearest, at each width.")
_add_evaluation("finetune", "Train each width's network and a classifier on it with labels, and test it.")


@app.command()
@needs("train")
def table(
    study: StudyName,
    name: Annotated[str, typer.Argument(help="A table of the study.")],
    params: ParamsFile = PARAMS,
    force: Force = False,
) -> None:
    """Write a table from the evaluations that exist."""
    from us3l.pipeline.plan.table import TableJob

    plan = _plan(params)
    job = TableJob(plan.table(study, name))
    if _is_made(plan, job, force):
        return
    from us3l.pipeline.stages.table import write_table

    write_table(job)
    _finish(job)


@app.command()
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
    is_file = len(source) == 1 and not width
    plan = None if is_file else _plan(params)
    job = plan and _planned_export(plan, *_address(source))
    if plan and job:
        if width or head or formats is not None or out:
            what = "params.yaml says its widths, head, formats and place; leave these options out"
            raise UserError(f"the export {' '.join(source[:2])}: {what}, or name a run")
        if _is_made(plan, job, force):
            return
    from us3l.pipeline.export import export_file, export_run
    from us3l.pipeline.stages.export import make_export
    from us3l.utils.devices import leased_device

    chosen = [name for name in (formats if formats is not None else "onnx,pt2").split(",") if name]
    with leased_device(device, gpus, threads) as where:
        if plan is None:
            holds = export_file(Path(source[0]), chosen, out)
        elif job:
            if holds := make_export(job, plan, where):
                _finish(job)
        else:
            holds = export_run(_deployed(plan, *_address(source), where), width or [], head, chosen, out)
    if not holds:
        raise typer.Exit(1)


@app.command()
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
        show_slices(_deployed(_plan(params), study, run, seed, where), chosen, out)


@app.command()
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
        choose(_deployed(_plan(params), study, run, seed, where), budget)


@app.command()
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

    expanded = _plan(params)
    if show_run:
        show_run_in_full(expanded, show_run)
        return
    if write:
        write_plan(expanded)
    (show_costs if cost else show)(expanded, study)


@app.command("list")
def list_names(
    kind: Annotated[Literal["backbones", "losses", "methods", "studies", "protocols"], typer.Argument()],
    params: ParamsFile = PARAMS,
) -> None:
    """List the names that the params file may use."""
    from us3l.pipeline.names import show_names

    show_names(kind, params)


@app.command()
def status(
    params: ParamsFile = PARAMS,
    follow: Annotated[bool, typer.Option("--follow", help="Show it again and again, until Ctrl-C.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Show the jobs that run, wait or were broken off, on all hosts that share this folder."""
    from us3l.pipeline.watching.status import show_status

    show_status(_plan(params), runs, follow)


@app.command()
@needs("train")
def show(
    cell: Annotated[str, typer.Argument(metavar="[STUDY/]TABLE:ROW:COLUMN", help="A cell, as `us3l verify` names it.")],
    params: ParamsFile = PARAMS,
) -> None:
    """Print where a number in a table comes from: seeds, files, commit, hours, and how to derive it again."""
    from us3l.pipeline.show import show_cell

    show_cell(_plan(params), cell)


@app.command()
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

    raise typer.Exit(verify(select(_plan(params), cells), level))


@app.command()
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

    plan = _plan(params)
    holds = requalify(plan, address)
    write_plan(plan)
    commit_to_dvc([])
    if not holds:
        raise typer.Exit(1)


@app.command()
def why(file: Annotated[Path, typer.Argument(help="A file that a stage made.")], params: ParamsFile = PARAMS) -> None:
    """Print what has changed since a file was made, and what would therefore run again."""
    from us3l.pipeline.why import explain

    explain(_plan(params), file)


@app.command()
@needs("workflow")
def make(stage: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")], params: ParamsFile = PARAMS) -> None:
    """Have Snakemake make the files of one stage of dvc.yaml; DVC calls this."""
    from us3l.pipeline.dvc import make

    make(_plan(params), stage)


@app.command()
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


@app.command()
def dvc(params: ParamsFile = PARAMS) -> None:
    """Write dvc.yaml: the stages of the studies that the params file builds."""
    from us3l.pipeline.dvc_file import DVC_FILE, write_dvc_file

    changed = write_dvc_file(_plan(params))
    print(f"{DVC_FILE}: {'written' if changed else 'has all stages already'}")


@app.command()
@needs("workflow")
def commit(params: ParamsFile = PARAMS) -> None:
    """Record results in DVC; Snakemake calls this at its end, with the files that it made on standard input."""
    from us3l.pipeline.dvc import commit

    commit(_plan(params), () if sys.stdin.isatty() else (line.rstrip("\n") for line in sys.stdin))


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


def _plan(path: Path) -> "Plan":
    from us3l.params.reading import load
    from us3l.pipeline.plan.plan import Plan

    return Plan(load(path), path)


def _job(plan: "Plan", study: str, name: str, seed: int, stage: str) -> "RunStage":
    """Return a stage of a run with one of its seeds. Raises UserError where the run has no such stage or seed."""
    from us3l.pipeline.plan.run import RunStage

    run = plan.run(study, name)
    if seed not in run.seeds:
        raise UserError(f"{plan.file}: the study {study} has the seeds {list(run.seeds)}, and no {seed}")
    if stage not in run.stages:
        raise UserError(f"{plan.file}: the run {study} {name} has the stages {', '.join(run.stages)}, and no {stage}")
    return RunStage(run, stage, seed)


def _address(words: list[str]) -> tuple[str, str, int]:
    """Read STUDY RUN SEED. Raises UserError for other words."""
    if len(words) != 3 or not words[2].isdecimal():
        raise UserError(f"{' '.join(words)}: give STUDY RUN SEED, or without --width the file of one network")
    return words[0], words[1], int(words[2])


def _planned_export(plan: "Plan", study: str, name: str, seed: int) -> "ExportJob | None":
    """Return the job of an export of the params file; None where the name is no such export's.

    Raises UserError where it has no such seed.
    """
    from us3l.pipeline.plan.export import ExportJob

    export = plan.exports.get((study, name))
    if export is None:
        return None
    if seed not in export.seeds:
        raise UserError(f"{plan.file}: the export {study} {name} has the seeds {list(export.seeds)}, and no {seed}")
    return ExportJob(export, seed)


def _deployed(plan: "Plan", study: str, name: str, seed: int, device: "torch.device") -> "DeployedRun":
    """Return a run whose networks are to be deployed. Raises UserError where params.yaml has no such run or seed."""
    from us3l.pipeline.deploy import DeployedRun

    return DeployedRun(plan, _job(plan, study, name, seed, plan.run(study, name).stages[-1]).run, seed, device)


def _is_made(plan: "Plan", job: "Job", force: bool) -> bool:
    """Tell whether a job's result is up to date and may stay, and print so."""
    from us3l.pipeline.up_to_date import is_up_to_date

    is_made = not force and is_up_to_date(plan, job)
    if is_made:
        print(f"us3l {job.command}: up to date; --force makes it again")
    return is_made


def _finish(job: "Job") -> None:
    """Date what a job has read no later than what it has written, whatever the clock did; tell what was written."""
    from us3l.pipeline.dates import OUTDATED, date_no_later_than_now
    from us3l.pipeline.watching.running import tell_outcome

    date_no_later_than_now([*job.inputs, OUTDATED])
    tell_outcome(job)
