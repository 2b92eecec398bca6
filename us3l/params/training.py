"""Runs in params.yaml: what is trained, or what stands in the place of a training."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from us3l.params.schema import (
    Closed,
    Count,
    Line,
    Name,
    NotNegative,
    Number,
    Positive,
    Probability,
    Reference,
    Several,
    Whole,
    Width,
    at,
    matching,
    rising,
)


class Sampling(Closed):
    """Which widths a training step sees, widest first; see us3l/widths.py."""

    range: Annotated[tuple[Width, Width], AfterValidator(rising)] = (0.25, 1.0)
    samples: Count = 3
    rule: Literal["sandwich", "uniform"] = "sandwich"
    schedule: Literal["dynamic", "constant"] = "dynamic"

    @model_validator(mode="after")
    def _both_ends(self) -> "Sampling":
        if self.rule == "sandwich" and self.samples == 1 and self.range[0] < self.range[1]:
            raise at("samples", "must be at least 2, not 1: the sandwich rule takes the widest and narrowest network")
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
    network itself is the teacher. `teacher` is a run whose checkpoint is a frozen one. `temperature` is that of infonce
    and nt-xent, the other two are those of kl.
    """

    name: Literal["simclr", "byol", "simsiam"]
    base: Literal["infonce", "nt-xent", "cosine"]
    distillation: Distillation | None = "cosine"
    distillation_strength: Positive = 1.0
    features: Features | None = None
    distillation_head: Literal["own", "shared"] = "own"
    momentum: Probability | None = 0.99
    momentum_update: Literal["widest", "every-width"] = "widest"
    teacher: Reference | None = None
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
            raise at("size", f"{what}, not {self.size}")
        return self


class Optimizer(Closed):
    """SGD, its learning rate constant within an epoch; see us3l/schedule.py."""

    lr: Positive
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    milestones: Annotated[list[Count], Field(default_factory=list)]
    warmup_epochs: Whole = 0

    @model_validator(mode="after")
    def _milestones(self) -> "Optimizer":
        if (self.schedule == "multistep") != bool(self.milestones):
            what = "milestones belong to the multistep schedule, and it needs them"
            raise ValueError(f"{what}; {self.schedule} has {self.milestones}")
        if self.milestones != sorted(set(self.milestones)):
            raise at("milestones", f"must rise, not {self.milestones}")
        return self

    def check_epochs(self, epochs: int) -> None:
        """Raise an error where a training of so many epochs would end before the schedule has run its course."""
        if self.milestones and self.milestones[-1] >= epochs:
            raise at("optimizer.milestones", f"must be below the {epochs} epochs, not {self.milestones}")
        if self.warmup_epochs >= epochs:
            raise at("optimizer.warmup_epochs", f"must be below the {epochs} epochs, not {self.warmup_epochs}")


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
            raise at("by", f"input-feature belongs to the kind group, not to {self.kind}")
        return self

    @model_validator(mode="after")
    def _never_negative(self) -> "Regularizer":
        if not self.is_l1 and self.decay == "linear" and self.alpha * (self.groups - 1) > 1:
            what = f"must be at most {1 / (self.groups - 1):.3g}, or the last of {self.groups} groups would grow"
            raise at("alpha", f"{what}, not {self.alpha}")
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
    sha256: Annotated[str, matching(r"[0-9a-f]{64}", "64 hexadecimal digits, in lower case")]
    dataset: Name
    backbone: Backbone
    range: Annotated[tuple[Width, Width], AfterValidator(rising)] = (0.25, 1.0)
    resources: Resources = Resources()

    @property
    def width_range(self) -> tuple[float, float]:
        return self.range

    @model_validator(mode="after")
    def _widest_is_there(self) -> "Official":
        if self.range[1] != 1.0:
            raise at(
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
            raise at("optimizer.weight_decay", f"must be 0 where a regularizer takes its place, not {decay}")
        if gpus and shards % gpus:
            raise at("resources.gpus", f"must divide the batch's shards, {shards}, not {gpus}")
        return self


class Reused(Closed):
    """The calibrated networks of another run, evaluated on another data set or by another protocol: no training.

    A protocol that is left out is the study's; the protocol's calibration has no part in it.
    """

    method: Literal["reuse"]
    run: Reference
    dataset: Name
    protocol: Name | None = None
    resources: Resources = Resources()


class Pruned(Closed):
    """The checkpoint of another run with its least channels cut off: a width is the share that is kept.

    The data set and the backbone are that run's. `criterion`: L1 norms of filters, or of BatchNorms' weights.
    """

    method: Literal["pruned"]
    run: Reference
    criterion: Literal["filters", "batch-norm"]
    resources: Resources = Resources()

    @property
    def width_range(self) -> tuple[float, float]:
        return 0.25, 1.0


def _kind_of_run(run: Any) -> str:
    method = run.get("method") if isinstance(run, dict) else getattr(run, "method", None)
    kinds = {"none": "untrained", "official": "official", "reuse": "reused", "pruned": "pruned"}
    return kinds.get(str(method), "pretrained")


Run = Annotated[
    Annotated[Untrained, Tag("untrained")]
    | Annotated[Official, Tag("official")]
    | Annotated[Reused, Tag("reused")]
    | Annotated[Pruned, Tag("pruned")]
    | Annotated[Pretrained, Tag("pretrained")],
    Discriminator(_kind_of_run),
]
