"""The schema of params.yaml: typed, closed, checked across fields before anything runs."""

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError


def _text(pattern: str, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("must be [low, high]")
    return ends


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("must be odd")
    return number


Number = Annotated[float, Strict()]
Share = Annotated[Number, Field(gt=0, le=1)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]
Probability = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Whole = Annotated[int, Strict(), Field(ge=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
Several = Annotated[int, Strict(), Field(ge=2)]
Seed = Annotated[Whole, Field(lt=2**64)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
WidthInText = Annotated[float, Field(ge=0.25, le=1)]
Width = Annotated[WidthInText, Strict()]
Name = Annotated[str, _text(r"[a-z0-9]+(-[a-z0-9]+)*", "lower-case letters and digits, with single hyphens between")]
Line = Annotated[str, _text(r".*\S.*", "one line of text")]


def _at(key: str, said: str) -> PydanticCustomError:
    """What is wrong with a key inside the record that is checked."""
    return PydanticCustomError("at_key", "{said}", {"key": key, "said": said})


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known) or 'none'}"


class Closed(BaseModel):
    """A record that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        known = list(cls.model_fields)
        if isinstance(given, dict):
            for key in given:
                if key not in known:
                    raise _at(str(key), f"unknown key; {_suggestion(str(key), known)}")
        elif not isinstance(given, cls):
            raise ValueError(f"must be a mapping with the keys {', '.join(known)}")
        return given


# --- data -----------------------------------------------------------------------------------------------------------


class Digits(Closed):
    """The 1,797 handwritten digits (8x8, grey) that ship with scikit-learn, split by class."""

    kind: Literal["digits"]
    test_fraction: Fraction


class Cifar(Closed):
    """The official python archive of CIFAR-10 or CIFAR-100, from an https:// or file:// address."""

    kind: Literal["cifar10", "cifar100"]
    url: Annotated[str, _text(r"(https?|file)://\S+", "an https:// or file:// address")]
    md5: Annotated[str, _text(r"[0-9a-f]{32}", "32 hexadecimal digits, in lower case")]


class Folder(Closed):
    """A folder of class folders. Each image is resized (shorter side) and centre-cropped to a square when prepared.

    Give either a `test` folder with the same classes, or the fraction of each class to hold out. `subset` is a file
    with the name of an image a line: only these are trained on.
    """

    kind: Literal["folder"]
    train: str
    test: str | None = None
    test_fraction: Fraction | None = None
    subset: str | None = None
    image_size: Count

    @model_validator(mode="after")
    def _one_test_set(self) -> "Folder":
        if (self.test is None) == (self.test_fraction is None):
            raise ValueError("give exactly one of test and test_fraction")
        if self.subset is not None and self.test is None:
            raise _at("subset", "needs a test folder: what test_fraction holds out may be on the list")
        return self


class Transfer(Closed):
    """A data set of transfer learning as torchvision lays it out below `root`; see us3l/data/transfer.py.

    Each image is resized and cropped as those of a folder. Caltech-101, which has no official split, takes 30 training
    images of each class, or holds out a fraction. `download` says only where the files may come from: no recipe has it.
    """

    kind: Literal["aircraft", "caltech101", "dtd", "flowers102", "food101", "pets"]
    root: str
    image_size: Count
    test_fraction: Fraction | None = None
    download: Annotated[bool, Strict(), Field(exclude=True)] = False

    @model_validator(mode="after")
    def _official_split(self) -> "Transfer":
        if self.test_fraction is not None and self.kind != "caltech101":
            raise _at("test_fraction", f"is for caltech101 only: {self.kind} has an official test set")
        return self


class ResizedCrop(Closed):
    """torchvision's RandomResizedCrop: a box of this share of the area and aspect ratio, resized to size x size."""

    size: Count
    scale: Annotated[tuple[Share, Share], AfterValidator(_rising)] = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Affine(Closed):
    """torchvision's RandomAffine without shear: rotation in degrees, shift as a share of the side, zoom."""

    degrees: Annotated[Number, Field(ge=0, le=180)] = 0.0
    translate: Probability = 0.0
    scale: Range = (1.0, 1.0)


class ColorJitter(Closed):
    """torchvision's ColorJitter, its four operations in random order, applied with a probability."""

    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: Annotated[Number, Field(ge=0, le=0.5)] = 0.0
    probability: Probability = 1.0


class Blur(Closed):
    """torchvision's GaussianBlur with sigma in pixels, applied with a probability."""

    kernel_size: Annotated[Count, AfterValidator(_odd)]
    sigma: Range = (0.1, 2.0)
    probability: Probability = 0.5


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

    @model_validator(mode="after")
    def _crop_fits(self) -> "TestView":
        if self.resize and self.center_crop and self.center_crop > self.resize:
            raise _at("center_crop", f"must be at most resize, {self.resize}, not {self.center_crop}")
        return self


class Normalize(Closed):
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: list[Probability]
    std: list[Share]


class Views(Closed):
    """How a data set's images are seen: two views for pretraining, one for the linear classifier, one for the test."""

    normalize: Normalize
    pretrain: Annotated[list[Augmentation], Field(min_length=2, max_length=2)]
    linear: Augmentation = Augmentation()
    test: TestView = TestView()


class Dataset(Closed):
    """Where a data set comes from and how its images are seen."""

    source: Annotated[Digits | Cifar | Folder | Transfer, Field(discriminator="kind")]
    views: Views

    @model_validator(mode="after")
    def _normalizes_each_channel(self) -> "Dataset":
        channels = 1 if self.source.kind == "digits" else 3
        for key, values in self.views.normalize:
            if len(values) != channels:
                what = f"must have one entry for each channel of the images, {channels}, not {values}"
                raise _at(f"views.normalize.{key}", what)
        return self


# --- pretraining ----------------------------------------------------------------------------------------------------


class Sampling(Closed):
    """Which widths a training step sees, widest first; see us3l/widths.py."""

    range: Annotated[tuple[Width, Width], AfterValidator(_rising)] = (0.25, 1.0)
    samples: Count = 3
    rule: Literal["sandwich", "uniform"] = "sandwich"
    schedule: Literal["dynamic", "constant"] = "dynamic"

    @model_validator(mode="after")
    def _both_ends(self) -> "Sampling":
        if self.rule == "sandwich" and self.samples == 1 and self.range[0] < self.range[1]:
            raise _at("samples", "must be at least 2, not 1: the sandwich rule takes the widest and narrowest network")
        return self


Distillation = Literal[
    "infonce", "cosine", "kl", "mse", "rkd-distance", "rkd-angle", "similarity-matrix", "similarity-matrix-mse"
]


class Features(Closed):
    """Distillation between feature maps of these layers, the student's through 1x1 convolutions; added to the other."""

    layers: Annotated[list[str], Field(min_length=1)]
    loss: Literal["mse", "cosine", "attention-spatial", "attention-channel"] = "mse"
    strength: Positive = 1.0


class Method(Closed):
    """Heads, losses and teacher; see us3l/learner.py.

    `name` fixes the heads; `base` is the loss of the widest network, `distillation` that of the others (null: they take
    the base loss too), weighted by its strength. `momentum` is the momentum encoder's; null means that the widest
    network itself is the teacher. `temperature` is that of infonce and nt-xent, the other two are those of kl.
    """

    name: Literal["simclr", "byol", "simsiam"]
    base: Literal["infonce", "nt-xent", "cosine"]
    distillation: Distillation | None = "cosine"
    distillation_strength: Positive = 1.0
    features: Features | None = None
    distillation_head: Literal["own", "shared"] = "own"
    momentum: Probability | None = 0.99
    momentum_update: Literal["widest", "every-width"] = "widest"
    temperature: Positive = 0.5
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    hidden: Several = 2048
    output: Several = 256

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
        if self.features and self.distillation is None:
            raise ValueError("features are distilled from the widest network: give distillation, or leave features out")
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
            what = f"must be at least {2 * self.shards}, 2 images for the batch statistics of each shard"
            raise _at("size", f"{what}, not {self.size}")
        return self


class Optimizer(Closed):
    """SGD, its learning rate constant within an epoch; see us3l/schedule.py."""

    lr: Positive
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    milestones: list[Count] = []
    warmup_epochs: Whole = 0

    @model_validator(mode="after")
    def _milestones(self) -> "Optimizer":
        if (self.schedule == "multistep") != bool(self.milestones):
            what = "milestones belong to the multistep schedule, and it needs them"
            raise ValueError(f"{what}; {self.schedule} has {self.milestones}")
        if self.milestones != sorted(set(self.milestones)):
            raise _at("milestones", f"must rise, not {self.milestones}")
        return self

    def check_epochs(self, epochs: int) -> None:
        """Raise an error where a training of so many epochs would end before the schedule has run its course."""
        if self.milestones and self.milestones[-1] >= epochs:
            raise _at("optimizer.milestones", f"must be below the {epochs} epochs, not {self.milestones}")
        if self.warmup_epochs >= epochs:
            raise _at("optimizer.warmup_epochs", f"must be below the {epochs} epochs, not {self.warmup_epochs}")


class ProbeOptimizer(Optimizer):
    """SGD, or LARS where `trust` is given: see `us3l.sgd.trusted`."""

    trust: Positive | None = None


class Regularizer(Closed):
    """A penalty on all weights at every step; `group` weakens it from the first channels to the last, `l2` does not.

    Two are on the absolute values of BatchNorms' weights and biases only, from the end of the warm-up on:
    `l1-batchnorm`, and `group-l1-batchnorm`, which grows from 0 by alpha a group. `by` says what `group` groups: output
    channels of BatchNorms and convolutions, or the input features of matrices, which are what vision transformers slim.
    """

    kind: Literal["group", "l2", "l1-batchnorm", "group-l1-batchnorm"]
    strength: Positive
    alpha: Probability = 0.05
    decay: Literal["linear", "exponential"] = "linear"
    groups: Count = 8
    by: Literal["output-channel", "input-feature"] = "output-channel"
    warmup_epochs: Whole = 0

    @property
    def is_l1(self) -> bool:
        return self.kind in ("l1-batchnorm", "group-l1-batchnorm")

    @model_validator(mode="after")
    def _groups_are_of_group(self) -> "Regularizer":
        if self.by == "input-feature" and self.kind != "group":
            raise _at("by", f"input-feature belongs to the kind group, not to {self.kind}")
        return self

    @model_validator(mode="after")
    def _never_negative(self) -> "Regularizer":
        if not self.is_l1 and self.decay == "linear" and self.alpha * (self.groups - 1) > 1:
            what = f"must be at most {1 / (self.groups - 1):.3g}, or the last of {self.groups} groups would grow"
            raise _at("alpha", f"{what}, not {self.alpha}")
        return self


class Resources(Closed):
    """What one training asks of the machine; it changes the speed, never the result, so no fingerprint holds it."""

    gpus: Whole = 1
    threads: Count = 1
    memory_mb: Count = 2000


Backbone = Literal[
    "small-resnet",
    "cifar-resnet18",
    "cifar-resnet34",
    "cifar-resnet50",
    "cifar-resnet101",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "cifar-mobilenetv2",
    "mobilenetv2",
    "vit-tiny",
    "vit-small",
    "vit-base",
]


class Untrained(Closed):
    """A network as it is initialized: a baseline that no training went into."""

    method: Literal["none"]
    dataset: Name
    backbone: Literal[Backbone, "pixels"]
    resources: Resources = Resources()

    @property
    def width_range(self) -> tuple[float, float]:
        return 0.25, 1.0


class Official(Closed):
    """A checkpoint of the official code in the place of a training; see us3l/interop.py. It holds every width."""

    method: Literal["official"]
    checkpoint: Line
    sha256: Annotated[str, _text(r"[0-9a-f]{64}", "64 hexadecimal digits, in lower case")]
    dataset: Name
    backbone: Backbone
    range: Annotated[tuple[Width, Width], AfterValidator(_rising)] = (0.25, 1.0)
    resources: Resources = Resources()

    @property
    def width_range(self) -> tuple[float, float]:
        return self.range

    @model_validator(mode="after")
    def _widest_is_there(self) -> "Official":
        if self.range[1] != 1.0:
            raise _at(
                "range", f"must end at 1.0, the width of the weights in an official checkpoint, not {self.range[1]}"
            )
        return self


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
    def _fits_together(self) -> "Pretrained":
        self.optimizer.check_epochs(self.epochs)
        decay, gpus, shards = self.optimizer.weight_decay, self.resources.gpus, self.batch.shards
        if self.regularizer and decay:
            raise _at("optimizer.weight_decay", f"must be 0 where a regularizer takes its place, not {decay}")
        if gpus and shards % gpus:
            raise _at("resources.gpus", f"must divide the batch's shards, {shards}, not {gpus}")
        return self


def _kind_of_run(run: Any) -> str:
    method = run.get("method") if isinstance(run, dict) else getattr(run, "method", None)
    return {"none": "untrained", "official": "official"}.get(str(method), "pretrained")


Run = Annotated[
    Annotated[Untrained, Tag("untrained")]
    | Annotated[Official, Tag("official")]
    | Annotated[Pretrained, Tag("pretrained")],
    Discriminator(_kind_of_run),
]


# --- evaluation -----------------------------------------------------------------------------------------------------


class Calibration(Closed):
    """BatchNorm statistics of one width: passes over the training images, exponential average with this momentum."""

    passes: Count = 3
    batch_size: Several = 128
    momentum: Share = 0.1


class Protocol(Closed):
    """A linear classifier on frozen features; the result is taken after the last epoch."""

    calibration: Calibration = Calibration()
    epochs: Count
    batch_size: Count
    optimizer: ProbeOptimizer

    @model_validator(mode="after")
    def _fits_together(self) -> "Protocol":
        self.optimizer.check_epochs(self.epochs)
        return self


def _each_width_once(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    runs = check(given)
    if len(runs) < len(given):
        raise ValueError("names a width twice; name each once")
    return runs


RunOfEachWidth = Annotated[dict[WidthInText, Name], Field(min_length=1), WrapValidator(_each_width_once)]
RunOrRuns = Annotated[
    Annotated[Name, Tag("run")] | Annotated[RunOfEachWidth, Tag("runs")],
    Discriminator(
        lambda given: {str: "run", dict: "runs"}.get(type(given)),
        custom_error_type="run_or_runs",
        custom_error_message="must be a run, or a mapping of widths to runs",
    ),
]


class Row(Closed):
    """One line of a table: a run, or for each width the run that stands for it."""

    label: Line
    runs: RunOrRuns

    def run_at(self, width: float) -> str | None:
        """The run whose result stands in the column of `width`; None where the row names none."""
        return self.runs if isinstance(self.runs, str) else self.runs.get(width)


class Table(Closed):
    """Rows are runs, columns are the study's widths, cells are top-1 accuracies."""

    title: Line
    rows: Annotated[list[Row], Field(min_length=1)]


class Study(Closed):
    """Runs that are evaluated alike, and the tables that compare them."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
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
        _distinct(self.build, "build")
        for index, study in enumerate(self.build):
            _defined(study, self.studies, f"build.{index}", "study")
        for name, study in self.studies.items():
            where = f"studies.{name}"
            _distinct(study.seeds, f"{where}.seeds")
            _distinct(study.widths, f"{where}.widths")
            _defined(study.protocol, self.protocols, f"{where}.protocol", "protocol")
            for run_name, run in study.runs.items():
                _defined(run.dataset, self.datasets, f"{where}.runs.{run_name}.dataset", "dataset")
                low, high = run.width_range
                if not any(low <= width <= high for width in study.widths):
                    what = f"has the widths {low} to {high}, but the study evaluates none of them, only {study.widths}"
                    raise _at(f"{where}.runs.{run_name}", what)
            for table_name, table in study.tables.items():
                for index, row in enumerate(table.rows):
                    _check_row(row, study, f"{where}.tables.{table_name}.rows.{index}.runs")
        return self


def _check_row(row: Row, study: Study, where: str) -> None:
    if isinstance(row.runs, str):
        _defined(row.runs, study.runs, where, "run")
        return
    for width, run in row.runs.items():
        _defined(run, study.runs, f"{where}.{width}", "run")
        low, high = study.runs[run].width_range
        if width not in study.widths:
            raise _at(f"{where}.{width}", f"must be one of the study's widths, {study.widths}")
        if not low <= width <= high:
            raise _at(f"{where}.{width}", f"the run {run!r} has the widths {low} to {high}")


def _defined(name: str, known: dict[str, Any], where: str, kind: str) -> None:
    if name not in known:
        raise _at(where, f"no {kind} is called {name!r}; {_suggestion(name, list(known))}")


def _distinct(values: list[Any], where: str) -> None:
    if len(set(values)) < len(values):
        raise _at(where, f"{values} names a value twice; name each once")
