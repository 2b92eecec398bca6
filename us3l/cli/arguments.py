"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
StudyName = Annotated[str, typer.Argument(help="A study of the params file.")]
RunName = Annotated[str, typer.Argument(help="A run of the study.")]
Seed = Annotated[int, typer.Argument(help="One of the study's seeds.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU if one exists.")]
Gpus = Annotated[int, typer.Option(help="Maximum number of GPUs; 0 is the CPU.", min=0)]
Nodes = Annotated[int, typer.Option(help="Nodes that share the GPUs: those of this Slurm job.", min=1)]
Threads = Annotated[int, typer.Option(help="CPU threads of each process.", min=1)]
Force = Annotated[bool, typer.Option("--force", help="Make it again, even where it is up to date.")]
Runs = Annotated[Path, typer.Option(help="Folder of the states of unfinished trainings.")]

PARAMS = Path("params.yaml")
