"""The schema of params.yaml: typed, closed, checked across fields before anything runs."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from us3l.errors import UserError

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Width = Annotated[float, Field(ge=0.25, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[Positive, Positive]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Closed(BaseModel):
    """A record that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- data -----------------------------------------------------------------------------------------------------------


class Digits(Closed):
    """The 1,797 handwritten digits (8x8, grey) that ship with scikit-learn, split by class."""

    kind: Literal["digits"]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]


class Cifar(Closed):
    """The official python archive of CIFAR-10 or CIFAR-100, from an https:// or file:// address."""

    kind: Literal["cifar10", "cifar100"]
    url: Annotated[str, Field(pattern=r"^(https?|file)://")]
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Folder(Closed):
    """A folder of class folders. Each image is resized (shorter side) and centre-cropped to a square when prepared.

    Give either a `test` folder with the same classes, or the fraction of each class to hold out.
    """

    kind: Literal["folder"]
    train: str
    test: str | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    image_size: Count

    @model_validator(mode="after")
    def _one_test_set(self) -> "Folder":
        if (self.test is None) == (self.test_fraction is None):
            raise ValueError("give exactly one of test and test_fraction")
        return self


class ResizedCrop(Closed):
    """torchvision's RandomResizedCrop: a box of this share of the area and aspect ratio, resized to size x size."""

    size: Count
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Affine(Closed):
    """torchvision's RandomAffine without shear: rotation in degrees, shift as a share of the side, zoom."""

    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Probability = 0.0
    scale: Range = (1.0, 1.0)


class ColorJitter(Closed):
    """torchvision's ColorJitter, its four operations in random order, applied with a probability."""

    brightness: Annotated[float, Field(ge=0)] = 0.0
    contrast: Annotated[float, Field(ge=0)] = 0.0
    saturation: Annotated[float, Field(ge=0)] = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    probability: Probability = 1.0


class Blur(Closed):
    """torchvision's GaussianBlur with sigma in pixels, applied with a probability."""

    kernel_size: Annotated[int, Field(ge=1, multiple_of=1)]
    sigma: Range = (0.1, 2.0)
    probability: Probability = 0.5

    @model_validator(mode="after")
    def _odd_kernel(self) -> "Blur":
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size must be odd")
        return self


class Solarize(Closed):
    """torchvision's RandomSolarize: values at or above the threshold (in [0, 1]) are inverted."""

    threshold: Probability = 0.5
    probability: Probability = 0.2


class Augmentation(Closed):
    """What happens to one view of a training image, in this order; what is left out does not happen."""

    resized_crop: ResizedCrop | None = None
    affine: Affine | None = None
    color_jitter: ColorJitter | None = None
    grayscale: Probability = 0.0
    blur: Blur | None = None
    flip: Probability = 0.0
    solarize: Solarize | None = None


class TestView(Closed):
    """What happens to a test image: resize the shorter side, then cut the centre; nothing when both are left out."""

    resize: Count | None = None
    center_crop: Count | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Normalize(Closed):
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: list[float]
    std: list[Positive]


class Views(Closed):
    """How a data set's images are seen: two views for pretraining, one for the linear classifier, one for the test."""

    normalize: Normalize
    pretrain: Annotated[list[Augmentation], Field(min_length=2, max_length=2)]
    linear: Augmentation = Augmentation()
    test: TestView = TestView()


class Dataset(Closed):
    """Where a data set comes from and how its images are seen."""

    source: Annotated[Digits | Cifar | Folder, Field(discriminator="kind")]
    views: Views


# --- pretraining ----------------------------------------------------------------------------------------------------


class Sampling(Closed):
    """Which widths a training step sees, widest first; see us3l/widths.py."""

    range: tuple[Width, Width] = (0.25, 1.0)
    samples: Count = 3
    rule: Literal["sandwich", "uniform"] = "sandwich"
    schedule: Literal["dynamic", "constant"] = "dynamic"

    @model_validator(mode="after")
    def _ordered(self) -> "Sampling":
        if self.range[0] > self.range[1]:
            raise ValueError("range must be [narrowest, widest]")
        if self.rule == "sandwich" and self.samples == 1 and self.range[0] < self.range[1]:
            raise ValueError(
                "the sandwich rule takes the widest and the narrowest network, so samples must be 2 or more"
            )
        return self


class Method(Closed):
    """Heads, losses and teacher; see us3l/methods.py.

    `name` fixes the heads; `base` is the loss of the widest network, `distillation` that of the others (null: they take
    the base loss too). `momentum` is the momentum encoder's; null means that the widest network itself is the teacher.
    """

    name: Literal["simclr", "byol", "simsiam"]
    base: Literal["infonce", "nt-xent", "cosine"]
    distillation: Literal["infonce", "cosine"] | None = "cosine"
    distillation_head: Literal["own", "shared"] = "own"
    momentum: Probability | None = 0.99
    momentum_update: Literal["widest", "every-width"] = "widest"
    temperature: Positive = 0.5
    hidden: Annotated[int, Field(ge=2)] = 2048
    output: Annotated[int, Field(ge=2)] = 256

    @model_validator(mode="after")
    def _meaningful(self) -> "Method":
        if self.name == "simsiam" and self.momentum is not None:
            raise ValueError("simsiam has no momentum encoder: set momentum to null, or take byol")
        if self.name == "byol" and self.momentum is None:
            raise ValueError("byol needs a momentum encoder: give momentum, or take simsiam")
        if self.base == "infonce" and self.momentum is None:
            raise ValueError("the infonce base loss compares with a momentum encoder: give momentum, or take nt-xent")
        if self.momentum is None and self.momentum_update == "every-width":
            raise ValueError("momentum_update says how often a momentum encoder moves, and there is none")
        if self.momentum is not None and self.distillation is None and self.momentum_update == "widest":
            raise ValueError(
                "without distillation every width needs its own target: set momentum_update to every-width"
            )
        return self


class Batch(Closed):
    """Images in a step over all processes, and the shards within which BatchNorm and negatives are computed."""

    size: Count
    shards: Count = 1

    @model_validator(mode="after")
    def _divides(self) -> "Batch":
        if self.size % self.shards:
            raise ValueError(f"{self.shards} shards do not divide a batch of {self.size}")
        if self.size < 2 * self.shards:
            raise ValueError("a shard needs at least 2 images for its batch statistics")
        return self


class Optimizer(Closed):
    """SGD, its learning rate constant within an epoch; see us3l/schedule.py."""

    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    milestones: list[Count] = []
    warmup_epochs: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _milestones(self) -> "Optimizer":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("milestones belong to the multistep schedule, and it needs them")
        return self


class Regularizer(Closed):
    """A penalty on all weights at every step; `group` weakens it from the first channels to the last, `l2` does not."""

    kind: Literal["group", "l2"]
    strength: Positive
    alpha: Annotated[float, Field(ge=0)] = 0.05
    decay: Literal["linear", "exponential"] = "linear"
    groups: Count = 8
    warmup_epochs: Annotated[int, Field(ge=0)] = 0


class Resources(Closed):
    """What one training asks of the machine; it changes the speed, never the result, so no fingerprint holds it."""

    gpus: Annotated[int, Field(ge=0)] = 1
    threads: Count = 1
    memory_mb: Count = 2000


Backbone = Literal[
    "pixels",
    "small-resnet",
    "cifar-resnet18",
    "cifar-resnet34",
    "cifar-resnet50",
    "resnet18",
    "resnet34",
    "resnet50",
]


class Untrained(Closed):
    """A network as it is initialized: a baseline that no training went into."""

    method: Literal["none"]
    dataset: Name
    backbone: Backbone
    resources: Resources = Resources()

    @property
    def width_range(self) -> tuple[float, float]:
        return 0.25, 1.0


class Pretrained(Closed):
    """One self-supervised training."""

    method: Method
    dataset: Name
    backbone: Backbone
    epochs: Count
    batch: Batch
    optimizer: Optimizer
    regularizer: Regularizer | None = None
    sampling: Sampling = Sampling()
    precision: Literal["float32", "bfloat16"] = "float32"
    resources: Resources = Resources()

    @property
    def width_range(self) -> tuple[float, float]:
        return self.sampling.range

    @model_validator(mode="after")
    def _one_decay(self) -> "Pretrained":
        if self.regularizer and self.optimizer.weight_decay:
            raise ValueError("optimizer.weight_decay must be 0 where a regularizer takes its place")
        return self


def _kind_of_run(run: Any) -> str:
    method = run.get("method") if isinstance(run, dict) else getattr(run, "method", None)
    return "untrained" if method == "none" else "pretrained"


Run = Annotated[
    Annotated[Untrained, Tag("untrained")] | Annotated[Pretrained, Tag("pretrained")], Discriminator(_kind_of_run)
]


# --- evaluation -----------------------------------------------------------------------------------------------------


class Calibration(Closed):
    """BatchNorm statistics of one width: passes over the training images, exponential average with this momentum."""

    passes: Count = 3
    batch_size: Annotated[int, Field(ge=2)] = 128
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1


class Protocol(Closed):
    """A linear classifier on frozen features; the result is taken after the last epoch."""

    calibration: Calibration = Calibration()
    epochs: Count
    batch_size: Count
    optimizer: Optimizer


class Row(Closed):
    """One line of a table: a run, or for each width the run that stands for it."""

    label: str
    runs: Name | dict[Width, Name]

    def run_at(self, width: float) -> str | None:
        """The run whose result stands in the column of `width`; None where the row names none."""
        return self.runs if isinstance(self.runs, str) else self.runs.get(width)


class Table(Closed):
    """Rows are runs, columns are the study's widths, cells are top-1 accuracies."""

    title: str
    rows: Annotated[list[Row], Field(min_length=1)]


class Study(Closed):
    """Runs that are evaluated alike, and the tables that compare them."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    widths: Annotated[list[Width], Field(min_length=1)]
    protocol: Name
    runs: dict[Name, Run]
    tables: dict[Name, Table]


class Params(Closed):
    """params.yaml. `build` names the studies that snakemake and `dvc repro` make when no target is given."""

    build: list[Name]
    datasets: dict[Name, Dataset]
    protocols: dict[Name, Protocol]
    studies: dict[Name, Study]

    @model_validator(mode="after")
    def _names_are_defined(self) -> "Params":
        for index, study in enumerate(self.build):
            _defined(study, self.studies, f"build.{index}", "study")
        for name, study in self.studies.items():
            where = f"studies.{name}"
            _distinct(study.seeds, f"{where}.seeds")
            _distinct(study.widths, f"{where}.widths")
            _defined(study.protocol, self.protocols, f"{where}.protocol", "protocol")
            for run_name, run in study.runs.items():
                _defined(run.dataset, self.datasets, f"{where}.runs.{run_name}.dataset", "dataset")
            for table_name, table in study.tables.items():
                for index, row in enumerate(table.rows):
                    _check_row(row, study, f"{where}.tables.{table_name}.rows.{index}.runs")
        return self


def _check_row(row: Row, study: Study, where: str) -> None:
    for run in [row.runs] if isinstance(row.runs, str) else row.runs.values():
        _defined(run, study.runs, where, "run")
    if isinstance(row.runs, dict):
        for width, run in row.runs.items():
            low, high = study.runs[run].width_range
            if width not in study.widths:
                raise ValueError(f"{where}: {width} is not one of the study's widths {study.widths}")
            if not low <= width <= high:
                raise ValueError(f"{where}: the run {run} has no width {width}; its range is [{low}, {high}]")


def _defined(name: str, known: dict[str, Any], where: str, kind: str) -> None:
    if name not in known:
        raise ValueError(
            f"{where}: no {kind} is called {name!r}{_suggestion(name, known) or f'; there is {list(known)}'}"
        )


def _distinct(values: list[Any], where: str) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{where}: {values} names a value twice; name each once")


def _suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# --- reading --------------------------------------------------------------------------------------------------------


def load(path: Path) -> Params:
    """Read and check a params file. Raises UserError: file, key, value and what would be right, in one sentence."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the command where params.yaml lies, or give --params") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    as_json = json.dumps(content, default=str)
    try:
        return Params.model_validate_json(as_json, strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error, json.loads(as_json))}") from None


def _sentence(error: ValidationError, content: Any) -> str:
    """One thing that is wrong: its key, what is wrong, the value given."""
    wrong = max(error.errors(), key=lambda each: len(each["loc"]))
    place = _place(wrong, content)
    if wrong["type"] == "extra_forbidden":
        known = [field for record in Closed.__subclasses__() for field in record.model_fields]
        return f"{place}: unknown key{_suggestion(str(wrong['loc'][-1]), known)}"
    message = wrong["msg"].removeprefix("Value error, ")
    given = "" if isinstance(wrong["input"], dict) else f", not {wrong['input']!r}"
    return f"{place}: {message[0].lower()}{message[1:]}{given}" if place else message


def _place(wrong: Any, content: Any) -> str:
    """The dotted key of an error; parts that stand for a type and not for a key of the file are left out."""
    keys = []
    for part in wrong["loc"]:
        if (isinstance(content, dict) and part in content) or (isinstance(content, list) and isinstance(part, int)):
            content = content[part]
            keys.append(str(part))
    if wrong["type"] == "missing":
        keys.append(str(wrong["loc"][-1]))
    return ".".join(keys)
