"""The stage figure: from records, images and networks to a picture."""

import time
from importlib import import_module

from us3l.pipeline.figures.style import look, write_figure
from us3l.pipeline.integrity import seals_of_files
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.figure import FigureJob
from us3l.pipeline.provenance import record
from us3l.utils.atomic import atomic_write
from us3l.utils.records import write_record


def write_figures(job: FigureJob) -> None:
    """Draw a figure as SVG and PNG, and write a record of what it was drawn from.

    Raises UserError where a record, the data set or a network is missing or damaged.
    """
    start = time.monotonic()
    [identity] = job.identities(CurrentSeals()).values()
    with look():
        figure = import_module(f"us3l.pipeline.figures.{job.figure.kind}").draw(job.figure)
        for path in job.plain_files:
            with atomic_write(path) as temporary:
                write_figure(figure, temporary, path.suffix[1:])
    facts = record(identity, None, time.monotonic() - start)
    write_record(job.record, {**facts, "files": seals_of_files(job)})
