"""The stage prepare: from a data set's source to arrays on disk, and their record."""

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from us3l.data.sources.places import Source, digest_of_files, image_folders
from us3l.data.sources.read import read_source
from us3l.data.sources.subset import MOST_BYTES
from us3l.data.store import DatasetSource, SplitSource, write_store
from us3l.params.dataset import Folder
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.probes.comparison import Outcome
from us3l.pipeline.probes.sample import sample_rows
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.utils.reading import read_plain
from us3l.utils.records import write_record


def prepare(job: PrepareJob, downloads: Path) -> None:
    """Write a data set's arrays and its record. Raises UserError where the source is missing or not as expected."""
    start, source = time.monotonic(), job.data.dataset.source
    contents = read_source(source, downloads)
    probed = _probe(contents)
    data = write_store(job.data.folder, contents)
    [identity] = job.identities(OpenedSeals(data)).values()
    facts = {**record(identity, None, time.monotonic() - start), "data": data, **_hashes(source)}
    write_record(job.record, {**facts, "probe": probed})


def probe(job: PrepareJob, downloads: Path) -> Outcome:
    """Return the outcome of the preparation's probe, with the present code."""
    return _probe(read_source(job.data.dataset.source, downloads))


def _probe(contents: DatasetSource) -> Outcome:
    """Describe classes, labels and a few images of each split."""
    splits = {"train": contents.train, "test": contents.test}
    about = {"classes": [*contents.classes], "shape": [*(contents.shape or ())]}
    return {**about, **{name: _sample(split) for name, split in splits.items()}}


def _sample(split: SplitSource) -> dict[str, Any]:
    rows = sample_rows(len(split.labels)).tolist()
    images = {f"image_{row}": _checksum(split.images[row : row + 1]) for row in rows}
    return {"size": len(split.labels), "labels": _checksum(split.labels), **images}


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _hashes(source: Source) -> dict[str, str]:
    """Return the SHA-256 of the list of images, if the source has one, and of its image files."""
    hashes = {}
    if isinstance(source, Folder) and source.subset:
        hashes["subset"] = hashlib.sha256(read_plain(Path(source.subset), MOST_BYTES)).hexdigest()
    if folders := image_folders(source):
        hashes["files"] = digest_of_files(folders)
    return hashes
