"""The stage prepare: from a data set's source to arrays on disk, and their record."""

import hashlib
import time
from pathlib import Path

from us3l.data.sources.read import Source, convert
from us3l.params.dataset import Folder
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.provenance import identify, record
from us3l.utils.records import write_record


def prepare(plan: DatasetPlan, downloads: Path) -> None:
    """Write a data set and its record. Raises UserError."""
    start = time.monotonic()
    data = convert(plan.dataset.source, plan.folder, downloads)
    identity = identify("prepare", plan.recipe)
    made_from = {"data": data, **_lists(plan.dataset.source)}
    write_record(plan.record, {**record(identity, None, time.monotonic() - start), **made_from})


def _lists(source: Source) -> dict[str, str]:
    """The SHA-256 of the list of images, where a source has one."""
    if not (isinstance(source, Folder) and source.subset):
        return {}
    return {"subset": hashlib.sha256(Path(source.subset).read_bytes()).hexdigest()}
