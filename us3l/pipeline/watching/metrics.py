"""Where the metrics of a training go: a CSV file, TensorBoard, DVCLive."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from us3l.params.runs import Metrics
from us3l.pipeline.plan.job import Job
from us3l.pipeline.watching.course import Reading
from us3l.pipeline.watching.logs import LOGS, require_log_folder
from us3l.utils.errors import UserError
from us3l.utils.extras import require_extra

COLUMNS = ("step", "epoch", "lr", "width", "loss", "spread", "images_per_second")

Writer = Callable[[Reading], None]


@contextmanager
def writers(settings: Metrics, job: Job, csv_file: Path, done: int) -> Iterator[list[Writer]]:
    """Open what takes the metrics of a training whose first `done` steps are done; later ones are written again.

    Raises UserError where a file cannot be written, or a package is missing.
    """
    opened = [_csv_writer(csv_file, done)]
    closing: list[Callable[[], Any]] = []
    if settings.tensorboard:
        require_extra("tensorboard", "metrics.tensorboard")
        opened.append(_tensorboard(_folder("tensorboard", job), done, closing))
    if settings.dvclive:
        require_extra("dvclive", "metrics.dvclive")
        opened.append(_dvclive(_folder("dvclive", job), closing))
    try:
        yield opened
    finally:
        for close in closing:
            close()


def kept_metrics(job: Job) -> Path:
    """Return the path of the CSV file of a training that is done, beside Snakemake's log of it."""
    return LOGS.joinpath(job.stage, *job.names, f"seed{job.seed}.csv")


def _csv_writer(path: Path, done: int) -> Writer:
    kept = _rows_until(path, done)
    with _writable(path), path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *kept])

    def write(reading: Reading) -> None:
        speed = "" if reading.images_per_second is None else f"{reading.images_per_second:.1f}"
        rows = [
            (
                reading.step,
                reading.epoch + 1,
                f"{reading.lr:.6g}",
                width,
                f"{loss:.6g}",
                f"{reading.spreads[width]:.6g}",
                speed,
            )
            for width, loss in reading.losses.items()
        ]
        with _writable(path), path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    return write


def _rows_until(path: Path, done: int) -> list[list[str]]:
    """Return the rows of an earlier file up to the step that a training goes on from."""
    if not path.is_file():
        return []
    with _writable(path), path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS)]
    return [row for row in rows if row[0].isdecimal() and int(row[0]) <= done]


def _tensorboard(folder: Path, done: int, closing: list[Callable[[], Any]]) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(folder), purge_step=done + 1)
    closing.append(board.close)

    def write(reading: Reading) -> None:
        for name, value in _scalars(reading).items():
            board.add_scalar(name, value, reading.step)

    return write


def _dvclive(folder: Path, closing: list[Callable[[], Any]]) -> Writer:
    from dvclive import Live

    live = Live(str(folder), resume=True, report=None, save_dvc_exp=False, dvcyaml=None)
    closing.append(live.end)

    def write(reading: Reading) -> None:
        live.step = reading.step
        for name, value in _scalars(reading).items():
            live.log_metric(name, value)
        live.make_summary()

    return write


def _scalars(reading: Reading) -> dict[str, float]:
    """Return the numbers of a reading by the names that TensorBoard groups: loss/1x, spread/0.25x, lr."""
    losses = {f"loss/{width}": value for width, value in reading.losses.items()}
    return {"lr": reading.lr, **losses, **{f"spread/{width}": value for width, value in reading.spreads.items()}}


def _folder(writer: str, job: Job) -> Path:
    return require_log_folder(LOGS.joinpath(writer, *job.names, f"seed{job.seed}"))


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: the metrics cannot be written: {error.strerror}; mend this, and run the same command again"
        ) from None
