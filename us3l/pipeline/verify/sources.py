"""Sources of data sets and of imported weights, as they lie here; without PyTorch."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from us3l.data.sources.places import digest_of_files, image_folders, places
from us3l.params.dataset import Cifar, Folder
from us3l.params.runs import ImportRun
from us3l.pipeline.plan.dataset import DOWNLOADS, DatasetPlan, PrepareJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunStage
from us3l.utils.records import read_record

Promised = dict[str, tuple[str, Path]]  # the promised hash and the file that has it, by what it is


def missing_source(job: Job) -> str | None:
    """Say what is not here of what a job takes from outside the project; None where all of it is."""
    if isinstance(job, PrepareJob):
        what, files = f"the source of {job.data.name}", places(job.data.dataset.source, DOWNLOADS)
    else:
        what, files = f"what us3l {job.command} imports", _imported(job)
    absent = [str(path) for path in files if not path.exists()]
    return f"{what} is not here: {', '.join(absent)}" if absent else None


def wrong_sources(jobs: Iterable[Job]) -> list[str]:
    """Describe where what lies here is not what params.yaml, or the record of a data set, says of its source."""
    wrong = []
    for job in jobs:
        if not missing_source(job):
            wrong += _of_data(job.data) if isinstance(job, PrepareJob) else _of_import(job)
    return wrong


def has_source(job: Job) -> bool:
    """Tell whether a job takes something from outside the project, which is here or not."""
    return bool(places(job.data.dataset.source, DOWNLOADS) if isinstance(job, PrepareJob) else _imported(job))


def _imported(job: Job) -> list[Path]:
    settings = job.run.run if isinstance(job, RunStage) and job.stage == "pretrain" else None
    return [Path(settings.checkpoint)] if isinstance(settings, ImportRun) else []


def _of_import(job: Job) -> list[str]:
    found = {path: _hash(path, "sha256") for path in _imported(job)}
    return [
        f"{path}: its SHA-256 is {actual}, and params.yaml promises {job.stage_params['run']['sha256']}"
        for path, actual in found.items()
        if actual != job.stage_params["run"]["sha256"]
    ]


def _of_data(data: DatasetPlan) -> list[str]:
    source, record = data.dataset.source, data.folder / "prepare.json"
    if isinstance(source, Cifar):
        [archive] = places(source, DOWNLOADS)
        actual, promised = _hash(archive, "md5"), source.md5
        return [] if actual == promised else [f"{archive}: its MD5 is {actual}, and params.yaml promises {promised}"]
    folders = image_folders(source)
    where = {"files": ", ".join(map(str, folders))} if folders else {}
    hashes = {"files": digest_of_files(folders)} if folders else {}
    if isinstance(source, Folder) and source.subset:
        where["subset"], hashes["subset"] = source.subset, _hash(Path(source.subset), "sha256")
    stated = read_record(record) if hashes and record.is_file() else {}
    return [
        f"{where[key]}: not what {data.name} was prepared from: SHA-256 {value}, and {record} says {stated.get(key)}"
        for key, value in hashes.items()
        if stated.get(key) != value
    ]


def _hash(path: Path, kind: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest()
    except OSError as error:
        return f"that of a file which cannot be read ({error.strerror})"
