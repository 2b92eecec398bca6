"""The forms of records: the keys that each kind has, and what their values can be; without PyTorch.

What no form has is compared with nothing, so that anyone could write it into a record.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from us3l.pipeline.code import EVALUATIONS


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Time = Annotated[str, AfterValidator(_time)]
Code = dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Form(BaseModel):
    """A mapping with no other keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Hardware(Form):
    """The hardware that made a result."""

    machine: str
    cpu: str
    cores: int | None
    device: Literal["cpu", "cuda"] | None = None
    threads: Count | None = None
    gpu: str | None = None
    cuda: str | None = None


class Git(Form):
    """The commit that made a result, and whether code or params differed from it."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
    dirty: bool


class Where(Form):
    """When, on what and from which commit a result was made."""

    finished: Time
    hardware: Hardware
    versions: dict[str, str]
    git: Git | None


class Difference(Form):
    """The largest difference of two outcomes of a probe."""

    key: str
    relative: NonNegative


class Requalified(Where):
    """How the outcome of a probe, run again by other code, compares with the recorded one."""

    stage: str
    was: Code
    now: Code
    promise: Literal["bitwise", "within rounding"]
    largest_difference: Difference | None
    probe: dict[str, Any]


class Requalification(Requalified):
    """The file of a requalification."""

    records: dict[str, Sha256]
    seal: Sha256


class Circumstances(Where):
    """What does not determine a result, and is compared with nothing."""

    seconds: NonNegative
    core_seconds: NonNegative = 0.0
    gpu_hours: NonNegative
    processes: Count
    requalified: list[Requalified] = []
    """Requalifications while the training was unfinished."""


CIRCUMSTANCES = tuple(Circumstances.model_fields)


class Result(Circumstances):
    """What all records have."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    stage: str
    params: dict[str, Any]
    code: Code
    probe: dict[str, Any] = {}
    seal: Sha256


class Prepared(Result):
    """Record of a data set."""

    data: Sha256
    subset: Sha256 | None = None
    files: Sha256 | None = None


class Epoch(Form):
    """An epoch of a training: means over its steps, for each width."""

    epoch: Whole
    lr: NonNegative
    loss: list[float]
    feature_std: list[float]
    seconds: NonNegative


class Look(Form):
    """What a monitor saw after an epoch, at some widths; knn: in percent, and absent for images without labels."""

    epoch: Whole
    widths: list[float]
    knn: list[Percent] | None = None
    rank: list[NonNegative]
    spread: list[NonNegative]


class Trained(Result):
    """Record of a training, or of what takes its place."""

    data: Sha256
    seed: int
    teacher: Sha256 | None = None
    checkpoint: Sha256
    epochs: list[Epoch]
    monitor: list[Look] | None = None
    imported: dict[str, Any] = {}


class Calibrated(Result):
    """Record of a calibration."""

    data: Sha256
    seed: int
    checkpoint: Sha256
    networks: dict[str, Sha256]


class Evaluated(Result):
    """Record of an evaluation."""

    study: str
    run: str
    protocol: str
    dataset: str
    data: Sha256
    seed: int
    checkpoint: Sha256
    width: float
    network: Sha256
    top1: Percent
    interval: Annotated[list[Percent], Field(min_length=2, max_length=2)]
    top5: Percent | None
    n: Count
    parameters: Whole
    macs: Whole
    image: Annotated[list[Count], Field(min_length=3, max_length=3)]
    predictions: str | None = None
    classifier: Sha256 | None = None


class Exported(Result):
    """Record of an export: `files` has the seal of each, by its path in the folder of the seed."""

    data: Sha256
    seed: int
    checkpoint: Sha256 | None = None
    networks: dict[str, Sha256]
    evaluations: dict[str, Sha256]
    files: dict[str, Sha256]


FORMS: dict[str, type[Form]] = {
    "prepare": Prepared,
    "pretrain": Trained,
    "calibrate": Calibrated,
    **dict.fromkeys(EVALUATIONS, Evaluated),
    "export": Exported,
}


def wrong_form(path: Path, record: Mapping[str, Any], form: type[Form]) -> list[str]:
    """Describe where a record has another form, or its file another text than we write: a key twice, for example."""
    if not is_as_written(path):
        return [f"{path}: not as us3l writes it: a key stands there twice, or spaces, or numbers in another form"]
    try:
        form.model_validate(record)
    except ValidationError as error:
        return [f"{path}: {_sentence(each)}" for each in error.errors()]
    return []


def _sentence(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            return f"{key} is no key of such a record"
        case "missing":
            return f"{key} is missing; the stage that writes it, run again with --force, adds it"
    return f"{key}: {error['msg']}, not {str(error['input'])[:80]!r}"


def is_as_written(path: Path) -> bool:
    """Tell whether the text of a JSON file is the one that its content has when we write it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return json.dumps(json.loads(text), indent=2) + "\n" == text
