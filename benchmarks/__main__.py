"""`python -m benchmarks`: us3l against the straightforward way and, where installed, other packages."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.parts import bench, require_parts
from benchmarks.report import write_report
from benchmarks.setting import setting
from us3l.params.reading import load
from us3l.pipeline.plan.plan import Plan
from us3l.utils import process
from us3l.utils.atomic import require_folder
from us3l.utils.devices import leased_device
from us3l.utils.errors import UserError, about_the_machine

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmarks(
    parts: Annotated[list[str] | None, typer.Argument(metavar="PART", help="All parts by default.")] = None,
    params: Annotated[Path, typer.Option(help="The params file.")] = Path("params.yaml"),
    run: Annotated[str, typer.Option(help="The run to measure, as STUDY/RUN.")] = "cifar100/us3l-resnet18",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads: 1, or beside a GPU all.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="Timed turns of each side.", min=1)] = 5,
    batch: Annotated[int | None, typer.Option(help="Images in a step: 64, or on a GPU the run's.", min=2)] = None,
    images: Annotated[int | None, typer.Option(help="Images elsewhere: 512, or on a GPU 25,600.", min=8)] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("benchmarks", "results"),
    report: Annotated[Path | None, typer.Option(help="Measure nothing: write what --out holds to this page.")] = None,
) -> None:
    """Measure us3l against the straightforward way and, where they are installed, other packages."""
    require_folder(out, "give --out one that is there, for the results")
    if report:
        write_report(out, report)
        return
    names = require_parts(parts or [])
    with leased_device(device, 1, threads or 1) as where:
        bench(names, setting(Plan(load(params), params), run, where, threads, repeats, batch, images), out)


def main() -> None:
    """Run the benchmark; a user's mistake ends in one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (OSError, UnicodeEncodeError) as error:
        print(f"benchmarks: {about_the_machine(error)}", file=sys.stderr)
        sys.exit(UserError.exit_code)
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    process.set_up()
    main()
