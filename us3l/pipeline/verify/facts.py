"""What records and weights say, held against the plan and against each other; without PyTorch."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from us3l.data.store import FILES
from us3l.evaluation.metrics import wilson
from us3l.evaluation.predictions import decode
from us3l.params.runs import PruneRun
from us3l.params.sampling import width_label
from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.forms import FORMS, Requalification, is_as_written, wrong_form
from us3l.pipeline.identity import differences, fingerprint
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.export import ExportJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.requalification import requalification, requalification_file
from us3l.pipeline.requalify import ProbedJob, Subject, compare, evidence
from us3l.utils.errors import UserError
from us3l.utils.reading import parse_json
from us3l.utils.records import MOST_BYTES, open_result, read_header, read_record

Facts = dict[str, Any]

META = {"classes", "shape", "sizes", "sha256", "folders"}  # keys of a data set's meta.json


def wrong_facts(job: Job) -> list[str]:
    """Describe what does not fit in the records of a job, and in the weights that they tell of.

    Only of files that are present and undamaged.
    """
    if not isinstance(job, PrepareJob | RunStage | ExportJob):  # a table, which level 0 derives again
        return []
    identities = job.identities(CurrentSeals())
    wrong = [line for path in job.records if path.is_file() for line in _of_record(job, path, [*identities[path]])]
    return [*wrong, *(_of_requalification(job) if isinstance(job, ProbedJob) else [])]


def _of_record(job: PrepareJob | RunStage | ExportJob, path: Path, keys: list[str]) -> list[str]:
    record = read_record(path)
    if wrong := wrong_form(path, record, FORMS[job.stage]):
        return wrong
    identity = {key: record[key] for key in keys if key in record}
    stated: list[tuple[str, Any, Any]] = [("fingerprint", record["fingerprint"], fingerprint(identity))]
    if isinstance(job, PrepareJob):
        stated.append(("data", record["data"], CurrentSeals().data(job.data.folder)))
        wrong = _of_store(job.data.folder)
    elif isinstance(job, ExportJob):
        files = {str(each.relative_to(job.folder)) for each in job.export.files(job.seed)}
        stated.append(("files", sorted(record["files"]), sorted(files)))
    elif job.stage in EVALUATIONS:
        stated += [(key, record[key], value) for key, value in job.titles.items()]
        stated += _accuracy(job, record)
        wrong = _of_classifier(job, record, identity)
    else:
        wrong = [line for file, about in _abouts(job, identity).items() for line in _of_weights(file, about)]
        if job.stage == "calibrate":
            stated.append(("networks", [*record["networks"]], [width_label(width) for width in job.run.widths]))
    return [*wrong, *(f"{path}: {key} is {is_}, and must be {must}" for key, is_, must in stated if is_ != must)]


def _of_store(folder: Path) -> list[str]:
    """Describe what the seal of a data set leaves out: other keys in meta.json, and bytes after an array."""
    meta = folder / "meta.json"
    if not (meta.is_file() and is_as_written(meta)):
        return [f"{meta}: not as us3l writes it"] if meta.is_file() else []
    unknown = json.loads(meta.read_text(encoding="utf-8")).keys() - META
    wrong = [f"{meta}: {key} is no key of it" for key in sorted(unknown)]
    for path in (folder / name for name in FILES if name.endswith(".npy")):
        array = np.load(path, mmap_mode="r")
        if array.offset + array.nbytes != path.stat().st_size:
            wrong.append(f"{path}: more bytes follow the array")
    return wrong


def _accuracy(job: RunStage, record: Facts) -> list[tuple[str, Any, Any]]:
    """Return what follows from the predicted classes and the labels of the test set: what is stated, and what is so."""
    labels = _labels(job.run.data.folder / "test_labels.npy")
    if labels is None:
        return []
    if "predictions" not in record:
        return [("predictions", "absent", f"there, as `us3l {job.command} --force` writes them")]
    if record["n"] != len(labels):
        return [("n", record["n"], len(labels))]
    try:
        correct = int((decode(record["predictions"], len(labels)) == labels).sum())
    except UserError as error:
        return [("predictions", str(error), "the class of each test image")]
    true = {"top1": 100 * correct / len(labels), "interval": wilson(correct, len(labels))}
    return [(key, record[key], value) for key, value in true.items()]


@cache
def _labels_at(path: Path, modified: int) -> np.ndarray:
    labels: np.ndarray = np.load(path)
    return labels


def _labels(path: Path) -> np.ndarray | None:
    """Read the labels of a test set; None where they are missing or damaged, which is told elsewhere."""
    try:
        return _labels_at(path.absolute(), path.stat().st_mtime_ns)
    except (OSError, ValueError, EOFError):
        return None


def _abouts(job: RunStage, identity: Facts) -> dict[Path, Facts]:
    """Return what the weights of a training or calibration must say of themselves, by their file."""
    run = job.run
    if job.stage == "pretrain":
        return {run.checkpoint(job.seed): identity}
    widest = RunStage(run.producer("pretrain"), "pretrain", job.seed).run.sampling.widest
    shapes = {width: widest if isinstance(run.run, PruneRun) else width for width in run.widths}
    built = {"backbone": run.backbone, "in_channels": run.data.dataset.channels}
    return {
        run.network(job.seed, width): {**identity, "width": width, "architecture": built | {"width": shape}}
        for width, shape in shapes.items()
    }


def _of_classifier(job: RunStage, record: Facts, identity: Facts) -> list[str]:
    """Compare what the classifier of an evaluation says of itself, where its protocol trains one."""
    meta, classifier = job.run.data.folder / "meta.json", job.run.classifier(job.seed, record["width"])
    if classifier not in job.run.classifiers(job.seed) or not meta.is_file():
        return []
    if "classifier" not in record:
        return [f"{classifier}: not sealed in the record; `us3l {job.command} --force` writes both"]
    seen = {"image": record["image"], "prepared_size": job.run.data.prepared_size}
    return _of_weights(
        classifier, {**identity, **seen, "classes": json.loads(meta.read_text(encoding="utf-8"))["classes"]}
    )


def _of_weights(path: Path, expected: Facts) -> list[str]:
    """Compare what a file of weights says of itself; other metadata, which the seal leaves out, must not be there."""
    if not path.is_file():
        return []
    try:
        with open_result(path, MOST_BYTES) as file:
            metadata = read_header(file, _without_twins)["__metadata__"]
        about = parse_json(metadata["us3l"].encode(), _without_twins)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path}: its metadata are not as us3l writes them ({error})"]
    about.pop("seal", None)
    changed = differences({**metadata, "us3l": about}, {"us3l": expected})
    return [f"{path}: {key} is {is_} in its metadata, and must be {must}" for key, is_, must in changed]


def _without_twins(pairs: list[tuple[str, Any]]) -> Facts:
    """Make a mapping of a JSON object. Raises ValueError where a key stands there twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands there twice")
    return made


def _of_requalification(job: ProbedJob) -> list[str]:
    """Describe what does not fit in the requalification of a job, which must follow from the two probes."""
    path, found = requalification_file(job), requalification(job)
    if found is None:
        return []
    if wrong := wrong_form(path, found, Requalification):
        return wrong
    subject = Subject(job, read_record(job.record))
    finding = compare(subject, (found["probe"], {}))
    expected = {"stage": job.stage, "was": subject.made["code"], **evidence(finding)}
    wrong = [] if finding.is_equal else [f"{path}: {finding}"]
    changed = differences({key: found[key] for key in expected}, expected)
    return [*wrong, *(f"{path}: {key} is {is_}, and must be {must}" for key, is_, must in changed)]
