"""Runs in params.yaml: what is trained, or what stands in the place of a training."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from us3l.params.methods import AnySampling, Method, Sampling
from us3l.params.schema import (
    Closed,
    Count,
    Fraction,
    Line,
    Name,
    NotNegative,
    Number,
    Positive,
    Probability,
    Reference,
    Whole,
    Width,
    at,
    matching,
    rising,
)


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


class TrainingOptimizer(Optimizer):
    """SGD, or AdamW (arXiv 1711.05101) with `betas`; `rate` says whether its rate changes by the epoch or the step."""

    kind: Literal["sgd", "adamw"] = "sgd"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    rate: Literal["epoch", "step"] = "epoch"

    @model_validator(mode="after")
    def _settings_are_read(self) -> "TrainingOptimizer":
        ignored = "momentum" if self.kind == "adamw" else "betas"
        if self.sets(ignored):
            raise at(ignored, f"is not read by {self.kind}: leave it out")
        return self


PENALTIES_THAT_READ = {
    "alpha": ("group", "group-l1-batchnorm"),
    "decay": ("group",),
    "groups": ("group", "group-l1-batchnorm"),
    "by": ("group",),
    "warmup_epochs": ("group", "l1-batchnorm", "group-l1-batchnorm"),
}


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
    def _settings_are_read(self) -> "Regularizer":
        for key, readers in PENALTIES_THAT_READ.items():
            if self.kind not in readers and self.sets(key):
                raise at(key, f"is read by {', '.join(readers)} only, and the kind is {self.kind}")
        return self

    @model_validator(mode="after")
    def _never_negative(self) -> "Regularizer":
        if self.kind == "group" and self.decay == "linear" and self.alpha * (self.groups - 1) > 1:
            what = f"must be at most {1 / (self.groups - 1):.3g}, or the last of {self.groups} groups would grow"
            raise at("alpha", f"{what}, not {self.alpha}")
        return self


class Resources(Closed):
    """What one training asks of the machine; it changes the speed, never the result, so no fingerprint holds it.

    `shards_at_once` is for a GPU whose memory does not hold all shards of a process together, which are the default.
    """

    gpus: Whole = 1
    threads: Count = 1
    memory_mb: Count = 2000
    shards_at_once: Count | None = None


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


_IDENTIFIER = r"[A-Za-z_]\w*"
OwnNetwork = Annotated[
    str,
    matching(
        rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}",
        "module:function, a module of this folder and a function of the width that is a torch.nn.Module",
    ),
]


def is_own(backbone: str) -> bool:
    """Whether a backbone is a user's own, `module:function`."""
    return ":" in backbone


def _own_or_known(backbone: Any) -> str:
    return "own" if is_own(str(backbone)) else "known"


# By its name, or a user's own function(width), as module:function; see us3l/models/own.py.
AnyBackbone = Annotated[
    Annotated[Backbone, Tag("known")] | Annotated[OwnNetwork, Tag("own")], Discriminator(_own_or_known)
]
BackboneOrPixels = Annotated[
    Annotated[Literal[Backbone, "pixels"], Tag("known")] | Annotated[OwnNetwork, Tag("own")],
    Discriminator(_own_or_known),
]


class Untrained(Closed):
    """A network as it is initialized: a baseline that no training went into. `backbone` as in a training, or pixels."""

    method: Literal["none"]
    dataset: Name
    backbone: BackboneOrPixels
    resources: Resources = Resources()

    sampling: ClassVar[Sampling] = Sampling()


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
    def sampling(self) -> Sampling:
        """The widths that it holds."""
        return Sampling(range=self.range)

    @model_validator(mode="after")
    def _widest_is_there(self) -> "Official":
        if self.range[1] != 1.0:
            raise at(
                "range", f"must end at 1.0, the width of the weights in an official checkpoint, not {self.range[1]}"
            )
        return self


class Pretrained(Closed):
    """One training. `backbone` is a name, or `module:function` for a user's own: see us3l/models/own.py."""

    method: Method
    dataset: Name
    backbone: AnyBackbone
    epochs: Count
    batch: Batch
    optimizer: TrainingOptimizer
    regularizer: Regularizer | None = None
    sampling: AnySampling = Sampling()
    precision: Literal["float32", "bfloat16"] = "float32"
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _fits_together(self) -> "Pretrained":
        self.optimizer.check_epochs(self.epochs)
        decay, gpus, shards = self.optimizer.weight_decay, self.resources.gpus, self.batch.shards
        if self.regularizer and decay:
            raise at("optimizer.weight_decay", f"must be 0 where a regularizer takes its place, not {decay}")
        warmup = self.regularizer.warmup_epochs if self.regularizer else 0
        if warmup >= self.epochs:
            raise at("regularizer.warmup_epochs", f"must be below the {self.epochs} epochs, not {warmup}")
        if gpus and shards % gpus:
            raise at("resources.gpus", f"must divide the batch's shards, {shards}, not {gpus}")
        if self.method.queue and self.method.queue % self.batch.size:
            raise at(
                "method.queue", f"must be a multiple of the batch's size, {self.batch.size}, not {self.method.queue}"
            )
        if self.method.features and self.method.momentum is None and self._widest_varies:
            what = "the teacher's feature maps would have other channels in every step"
            raise at("sampling.rule", f"without a momentum encoder {what}: take sandwich, or leave features out")
        return self

    @property
    def _widest_varies(self) -> bool:
        """Whether the widest network of a step is not the same in all of them."""
        return isinstance(self.sampling, Sampling) and self.sampling.rule == "uniform"


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

    sampling: ClassVar[Sampling] = Sampling()


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
