"""What makes a result stale: for every key of params.yaml, the jobs whose results an edit of it makes out of date.

staleness.csv has the jobs of the file below, and for each key those whose identity an edit of its value changes. The
keys are read from the schema, so that a new one has to be added there, with a thought about what depends on it.
"""

import csv
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from us3l.params.params import Params
from us3l.params.references import resolve
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.plan import job as plan_job
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob

TABLE = Path(__file__).with_name("staleness.csv")

AUGMENTATION = {
    "resized_crop": {"size": 8},
    "affine": {"degrees": 10.0},
    "color_jitter": {"hue": 0.1},
    "blur": {"kernel_size": 3},
    "solarize": {},
}
VIEWS = {
    "normalize": {"mean": [0.5] * 3, "std": [0.5] * 3},
    "pretrain": [AUGMENTATION] * 2,
    "linear": AUGMENTATION,
    "test": {"resize": 9, "center_crop": 8},
}
CIFAR = {"kind": "cifar10", "url": "file:///cifar", "md5": "0" * 32, "subset": {"classes": 2, "train": 8, "test": 8}}
SOURCES = {
    "files": {"kind": "folder", "train": "train", "test": "test", "subset": "list.txt", "page": "https://example.org"},
    "archive": CIFAR,
    "downloaded": {"kind": "caltech101", "root": "raw", "test_fraction": 0.5},
    "other": {"kind": "cifar10", "url": "file:///cifar", "md5": "1" * 32},
}
DIGITS = {
    "source": {"kind": "digits", "test_fraction": 0.5},
    "views": {"normalize": {"mean": [0.3], "std": [0.4]}, "pretrain": [{}, {}]},
}
HEADS = {"hidden": 16, "output": 8}
TRAINED = {"epochs": 4, "batch_size": 8, "optimizer": {"lr": 0.1, "schedule": "multistep", "milestones": [2]}}
TRAINING = {
    "dataset": "files",
    "backbone": "small-resnet",
    "method": {
        "name": "byol",
        "base_loss": "cosine",
        "projector": HEADS,
        "feature_distillation": {"layers": ["layer1"], "loss": "cosine"},
    },
    "epochs": 4,
    "batch": {"size": 8, "shards": 2},
    "optimizer": {"lr": 0.1, "schedule": "multistep", "milestones": [2]},
    "regularizer": {"kind": "group", "strength": 1e-4},
    "monitor": {"every": 2},
    "resources": {"shards_at_once": 1},
}
ALONE = TRAINING | {"method": {"name": "simsiam", "base_loss": "cosine", "momentum": None, "projector": HEADS}}
RUNS = {
    "trained": TRAINING,
    "fixed": ALONE | {"sampling": {"widths": [0.5, 1.0]}},
    "taught": ALONE | {"method": ALONE["method"] | {"teacher": "trained"}},
    "labelled": ALONE
    | {
        "method": {
            "name": "supervised",
            "base_loss": "cross-entropy",
            "distillation_loss": "soft-labels",
            "momentum": None,
        }
    },
    "pruned": {"kind": "prune", "weights_from": "trained", "criterion": "filters"},
    "imported": {
        "kind": "import",
        "checkpoint": "a.pth.tar",
        "sha256": "0" * 64,
        "dataset": "files",
        "backbone": "small-resnet",
        "range": [0.5, 1.0],
    },
    "switchable": {
        "kind": "import",
        "checkpoint": "b.pth.tar",
        "sha256": "0" * 64,
        "dataset": "files",
        "backbone": "small-resnet",
        "widths": [1.0, 0.5],
    },
    "untrained": {"kind": "untrained", "dataset": "files", "backbone": "small-resnet"},
}
KINDS = {
    "linear": TRAINED | {"optimizer": TRAINED["optimizer"] | {"trust_coefficient": 0.01}},
    "features-linear": TRAINED
    | {"kind": "features-linear", "optimizer": TRAINED["optimizer"] | {"trust_coefficient": 0.01}},
    "knn": {"kind": "knn"},
    "finetune": TRAINED | {"kind": "finetune", "classifier_lr": 0.5},
}
KINDS["again"] = KINDS["linear"]
REUSED = {
    f"by-{kind}": {"kind": "reuse", "weights_from": "trained", "dataset": "files", "protocol": kind}
    for kind in ("features-linear", "knn", "finetune")
}
ROW = {"label": "Row", "runs": "trained", "published": {1.0: {"top1": 70.0, "source": "A paper"}}}
CONTENT = {
    "build": ["study"],
    "datasets": {name: {"source": source, "views": VIEWS} for name, source in SOURCES.items()} | {"digits": DIGITS},
    "methods": {"named": TRAINING["method"]},
    "protocols": KINDS,
    "studies": {
        "study": {
            "seeds": [0],
            "widths": [1.0, 0.5],
            "protocol": "linear",
            "runs": RUNS | REUSED,
            "exports": {
                "shipped": {"run": "fixed", "head": True},
                "wide": {"run": "trained", "seeds": [0], "widths": [0.75, 1.0], "formats": ["onnx"]},
            },
            "tables": {"table": {"title": "Title", "rows": [ROW, {"label": "Apart", "runs": {1.0: "fixed"}}]}},
        }
    },
}
PARAMS = Params.model_validate(CONTENT)

# What a reference is changed to.
OTHER_NAMES = {"files": "other", "trained": "fixed", "fixed": "trained", "linear": "again"}
OTHER_NAMES |= dict.fromkeys(("features-linear", "knn", "finetune"), "linear")


# --- the keys of the schema -----------------------------------------------------------------------------------------


def keys(annotation: Any, name: str) -> Iterator[str]:
    """Yield the keys below a type, such as datasets.*.source[digits].test_fraction: * stands for names and numbers."""
    plain = unannotated(annotation)
    models = [each for each in alternatives(plain) if is_model(each)]
    if get_origin(plain) is dict:
        yield from keys(get_args(plain)[1], f"{name}.*")
    elif get_origin(plain) is list and is_model(get_args(plain)[0]):
        yield from keys(get_args(plain)[0], f"{name}.*")
    elif models:
        if type(None) in alternatives(plain):
            yield name
        for model in models:
            place = f"{name}[{tag(model)}]" if len(models) > 1 else name
            for field, info in model.model_fields.items():
                yield from keys(info.annotation, f"{place}.{field}")
    elif not (get_origin(plain) is Literal and len(get_args(plain)) == 1):  # a tag that tells records apart
        yield name


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def unannotated(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def alternatives(annotation: Any) -> list[Any]:
    plain = unannotated(annotation)
    if get_origin(plain) in (Union, types.UnionType):
        return [each for part in get_args(plain) for each in alternatives(part)]
    return [plain]


def tag(model: type[BaseModel]) -> str:
    """Tell a model from the others in its place: by its kind, or by its class."""
    kind = model.model_fields.get("kind")
    return str(get_args(kind.annotation)[0]) if kind else model.__name__


KEYS = [key for field, info in Params.model_fields.items() for key in keys(info.annotation, field)]


# --- edits ----------------------------------------------------------------------------------------------------------


def edited(value: Any, parts: list[str], annotation: Any = None) -> Any:
    """Return a copy with another value in all places of a key; its parts are names, * and names with tags."""
    if not parts:
        return another(value, annotation)
    name, _, kind = parts[0].rstrip("]").partition("[")
    if isinstance(value, BaseModel):
        field = type(value).model_fields.get(name)
        inside = getattr(value, name, None)
        if field is None or (kind and tag(type(inside)) != kind):
            return value
        return value.model_copy(update={name: edited(inside, parts[1:], field.annotation)})
    if isinstance(value, dict):
        return {key: edited(each, parts[1:]) if is_of(each, kind) else each for key, each in value.items()}
    return [edited(each, parts[1:]) for each in value] if isinstance(value, list) else value


def is_of(value: Any, kind: str) -> bool:
    return not kind or tag(type(value)) == kind


def another(value: Any, annotation: Any) -> Any:
    """Return another value of the same type: the next of a few names, nothing for a record that may be left out."""
    for each in alternatives(annotation):
        if get_origin(each) is Literal:
            return next(name for name in get_args(each) if name != value)
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 or 0.5
        case str():
            return OTHER_NAMES.get(value, f"{value}2")
        case tuple():
            return another(value[0], None), *value[1:]
        case list():
            return [*value[:-1], another(value[-1], None)] if value else [1]
        case dict():
            return {key: another(each, None) for key, each in value.items()}
    numbers = [each for each in alternatives(annotation) if each in (int, float)]
    return numbers[0](1) if value is None and numbers else None


# --- jobs -----------------------------------------------------------------------------------------------------------


class Paths:
    """Seals that are the paths of the files, so that nothing is stale by what stands before it."""

    def data(self, folder: Path) -> str:
        return str(folder)

    def weights(self, path: Path) -> str:
        return str(path)

    record = weights


def identities(params: Params) -> dict[tuple[str, str], str]:
    """Return the fingerprints of all results with the seed 0, by stage and name of data set, run or table."""
    plan = Plan(params)
    everything: list[Job] = [*map(PrepareJob, plan.datasets.values()), *jobs(plan, plan.studies)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableJob, "present_inputs", property(lambda job: job.inputs))  # as if all were there
        patch.setattr(plan_job, "code", lambda stage: {})  # no key changes it
        return {
            (job.stage, job.names[-1]): fingerprint([*job.identities(Paths()).values()])
            for job in everything
            if not job.seed
        }


STAGES = ("prepare", "pretrain", "calibrate", "linear", "features-linear", "knn", "finetune", "table", "export")


@pytest.fixture(scope="module")
def before() -> dict[tuple[str, str], str]:
    """The fingerprints of the file as it is."""
    return identities(PARAMS)


def stale(key: str, before: dict[tuple[str, str], str]) -> dict[str, str]:
    """Return by stage the names whose result an edit of this key makes out of date."""
    params = edited(PARAMS, key.split("."))
    params._resolved = resolve(params.studies)
    now = identities(params)
    names = {stage: [name for each, name in before if each == stage] for stage in STAGES}
    changed = {
        stage: [name for name in of if now.get((stage, name)) != before[stage, name]] for stage, of in names.items()
    }
    return {stage: "all" if of == names[stage] else " ".join(of) for stage, of in changed.items()}


with TABLE.open(newline="") as file:
    EXPECTED = {row.pop("key"): row for row in csv.DictReader(file)}


def test_the_table_has_every_key_of_the_schema_and_no_other() -> None:
    new, gone = [key for key in KEYS if key not in EXPECTED], [key for key in EXPECTED if key not in KEYS]
    assert not new, f"{TABLE.name} says of no stage whether an edit of {new[0]} makes its results stale: add a row"
    assert not gone, f"{TABLE.name} has a row of {gone[0]}, which is no key of params.yaml: remove it"


@pytest.mark.parametrize("key", EXPECTED)
def test_an_edit_of_a_key_makes_these_results_stale_and_no_other(before: dict[tuple[str, str], str], key: str) -> None:
    assert stale(key, before) == EXPECTED[key]


def test_a_table_rests_on_the_evaluations_that_are_there_and_on_what_those_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Plan(PARAMS)
    job, run = TableJob(plan.table("study", "table")), plan.run("study", "trained")
    seen = [fingerprint([*job.identities(Paths()).values()])]

    def appears(*paths: Path) -> bool:
        """Whether files make the table stale."""
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        seen.append(fingerprint([*TableJob(job.table).identities(Paths()).values()]))
        return seen[-1] != seen[-2]

    assert not appears(run.training_record(0), run.calibration_record(0)), "no cell shows them yet"
    assert appears(run.evaluation_record(0, 1.0))
    of_first = [run.calibration_record(0), run.evaluation_record(0, 1.0), run.training_record(0)]
    assert TableJob(job.table).present_inputs == sorted(of_first)
    assert appears(run.evaluation_record(0, 0.5)), "another cell of the same training"
    assert not appears(run.evaluation_record(7, 1.0)), "of no seed of the study"
    assert appears(plan.run("study", "fixed").evaluation_record(0, 1.0)), "whether or not it says what it came from"
    assert len(TableJob(job.table).present_inputs) == 5
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    ("name", "stage", "origin"),
    [
        ("trained", "pretrain", {}),
        ("taught", "pretrain", {"teacher": "trained"}),
        ("trained", "calibrate", {"checkpoint": "trained"}),
        ("pruned", "calibrate", {"checkpoint": "trained"}),
        ("by-knn", "knn", {"checkpoint": "trained", "width": 0.5, "network": "trained"}),
        ("pruned", "linear", {"checkpoint": "trained", "width": 0.5, "network": "pruned"}),
    ],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_a_result_is_known_by_its_seed_its_width_and_the_seals_of_what_it_is_made_from(
    name: str, stage: str, origin: dict[str, Any], seed: int
) -> None:
    plan = Plan(PARAMS)
    job = RunStage(plan.run("study", name), stage, seed)
    files = {"teacher": plan.runs["study", "trained"].checkpoint(seed)}
    if "checkpoint" in origin:
        files["checkpoint"] = plan.runs["study", origin["checkpoint"]].checkpoint(seed)
    if "network" in origin:
        files["network"] = plan.runs["study", origin["network"]].network(seed, 0.5)
    seals = {key: str(files[key]) for key in origin if key in files}
    expected = {"stage": stage, "params": job.stage_params, "code": job.code, "data": "data/files", "seed": seed}
    assert [*job.identities(Paths()).values()][-1] == expected | origin | seals
