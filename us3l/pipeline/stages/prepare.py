"""The stage prepare: from a data set's source to arrays on disk, and their record."""

import hashlib
import time
from pathlib import Path

from us3l.data.sources.read import Source, convert
from us3l.params.dataset import Folder
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.utils.records import write_record


def prepare(job: PrepareJob, downloads: Path) -> None:
    """Write a data set's arrays and its record. Raises UserError where the source is missing or not as expected."""
    start, source = time.monotonic(), job.data.dataset.source
    data = convert(source, job.data.folder, downloads)
    [identity] = job.identities(OpenedSeals(data)).values()
    write_record(job.record, {**record(identity, None, time.monotonic() - start), "data": data, **_subset_hash(source)})


def _subset_hash(source: Source) -> dict[str, str]:
    """Return the SHA-256 of the list of images, if the source has one."""
    if not (isinstance(source, Folder) and source.subset):
        return {}
    return {"subset": hashlib.sha256(Path(source.subset).read_bytes()).hexdigest()}
