"""Commands that make something: a project, and the result of each stage."""

import os
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from us3l.cli.application import app
from us3l.cli.arguments import PARAMS, Device, Force, Gpus, Nodes, ParamsFile, RunName, Runs, Seed, StudyName, Threads
from us3l.cli.plans import finish, is_made, load_plan, stage_of
from us3l.utils.errors import UserError
from us3l.utils.extras import needs

command = partial(app.command, rich_help_panel="Make")


@command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; it may not exist yet.")] = Path(),
    images: Annotated[
        Path | None, typer.Option(help="A folder of class folders, or of train and test or val with class folders.")
    ] = None,
) -> None:
    """Make a project, ready for Snakemake and DVC, that trains on a folder of images; without one, on the digits."""
    from us3l.pipeline.new_project.create import create

    create(folder, images)


@command()
@needs("train")
def prepare(
    dataset: Annotated[str, typer.Argument(help="A data set of the params file.")],
    params: ParamsFile = PARAMS,
    force: Force = False,
) -> None:
    """Convert a data set's source to arrays, in data/<dataset>/."""
    from us3l.pipeline.plan.dataset import DOWNLOADS, PrepareJob

    plan = load_plan(params)
    job = PrepareJob(plan.dataset(dataset))
    if is_made(plan, job, force):
        return
    from us3l.pipeline.stages.prepare import prepare
    from us3l.pipeline.watching.bar import goes_on
    from us3l.pipeline.watching.job_status import COMPUTING, job_status
    from us3l.pipeline.watching.running import tell_beginning, tell_outcome

    tell_beginning(job)
    with job_status(job, COMPUTING), goes_on(job.command):
        prepare(job, DOWNLOADS)
    tell_outcome(job)


@command()
@needs("train")
def pretrain(
    study: StudyName,
    run: RunName,
    seed: Seed,
    params: ParamsFile = PARAMS,
    device: Device = "auto",
    gpus: Gpus = 1,
    nodes: Nodes = 1,
    threads: Threads = 1,
    runs: Runs = Path("runs"),
    save_every: Annotated[float, typer.Option(help="Seconds between two saved states.", min=0)] = 60.0,
    rdzv_endpoint: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where nodes meet that are started by hand, on that of rank 0.")
    ] = "",
    node_rank: Annotated[int, typer.Option(envvar="SLURM_NODEID", help="Rank of this node, from 0.", min=0)] = 0,
    force: Force = False,
) -> None:
    """Train one run with one seed; continues where it was interrupted. Starts one process for each GPU."""
    plan = load_plan(params)
    job = stage_of(plan, study, run, seed, "pretrain")
    is_one_of_many = rdzv_endpoint or "WORLD_SIZE" in os.environ  # those that start together decide together, below
    if gpus % nodes:
        raise UserError(f"--nodes {nodes}: does not divide the GPUs; --gpus {gpus} are those of all nodes")
    if not is_one_of_many and is_made(plan, job, force):
        return
    from us3l.pipeline.watching.running import running
    from us3l.utils import launch

    if nodes > 1 and not is_one_of_many:
        launch.srun(nodes, gpus // nodes, threads)
    with running(job, device, gpus // nodes, threads) as (where, status):
        from us3l.pipeline.stages.pretrain import pretrain
        from us3l.utils import distributed

        processes = launch.process_count(where, job.run.shards, nodes)
        if "WORLD_SIZE" not in os.environ and nodes * processes > 1:
            if status:
                status.remove()  # the first of the processes has its own
            if nodes > 1:
                launch.launch_node(processes, job.command, nodes, node_rank, rdzv_endpoint)
            else:
                launch.launch(processes, job.command)
            return
        with distributed.world(where) as world:
            if not (is_one_of_many and world.any(world.is_main and is_made(plan, job, force))):
                pretrain(job, world, runs, save_every, status)
                if world.is_main:
                    finish(job)


@command("import")
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


@command()
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
    plan = load_plan(params)
    job = stage_of(plan, study, run, seed, "calibrate")
    if is_made(plan, job, force):
        return
    from us3l.pipeline.watching.running import running

    with running(job, device, gpus, threads) as (where, _):
        from us3l.pipeline.stages.calibrate import calibrate

        calibrate(job, where)
    finish(job)


def _add_evaluation(kind: str, help: str) -> None:
    """Add the command of one kind of evaluation, which calls the kind's module in us3l.evaluation."""

    @command(kind, help=help)
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
        plan = load_plan(params)
        job = stage_of(plan, study, run, seed, kind)
        if is_made(plan, job, force):
            return
        from us3l.pipeline.code import EVALUATIONS
        from us3l.pipeline.watching.running import running

        with running(job, device, gpus, threads) as (where, _):
            from us3l.pipeline.stages.evaluate import evaluate

            evaluate(job, where, import_module(EVALUATIONS[kind]).evaluate_networks, logits)
        finish(job)


_add_evaluation("linear", "Train a linear classifier on each width's frozen features and test it.")
_add_evaluation("features-linear", "Train a linear classifier on features that are extracted once, and test it.")
_add_evaluation("knn", "Classify test images by the training images whose features are nearest, at each width.")
_add_evaluation("finetune", "Train each width's network and a classifier on it with labels, and test it.")


@command()
@needs("train")
def table(
    study: StudyName,
    name: Annotated[str, typer.Argument(help="A table of the study.")],
    params: ParamsFile = PARAMS,
    force: Force = False,
) -> None:
    """Write a table from the evaluations that exist."""
    from us3l.pipeline.plan.table import TableJob

    plan = load_plan(params)
    job = TableJob(plan.table(study, name))
    if is_made(plan, job, force):
        return
    from us3l.pipeline.stages.table import write_table

    write_table(job)
    finish(job)


@command()
@needs("train")
@needs("figures")
def figure(
    study: StudyName,
    name: Annotated[str, typer.Argument(help="A figure of the study, such as training.")],
    params: ParamsFile = PARAMS,
    force: Force = False,
) -> None:
    """Draw a figure of a study from its records, images and networks."""
    from us3l.pipeline.plan.figure import FigureJob

    plan = load_plan(params)
    job = FigureJob(plan.figure(study, name))
    if is_made(plan, job, force):
        return
    from us3l.pipeline.stages.figure import write_figures

    write_figures(job)
    finish(job)
