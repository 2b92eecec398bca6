"""Runs in params.yaml: what is trained, or what stands in the place of a training."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

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
    Several,
    Whole,
    Width,
    at,
    matching,
    rising,
)


class Sampling(Closed):
    """Which widths of a range a training step sees, widest first; see us3l/widths.py."""

    range: Annotated[tuple[Width, Width], AfterValidator(rising)] = (0.25, 1.0)
    samples: Count = 3
    rule: Literal["sandwich", "uniform"] = "sandwich"
    schedule: Literal["dynamic", "constant"] = "dynamic"

    own_norms: ClassVar[tuple[float, ...]] = ()

    @property
    def widest(self) -> float:
        return self.range[1]

    def has(self, width: float) -> bool:
        return self.range[0] <= width <= self.range[1]

    def __str__(self) -> str:
        return f"{self.range[0]} to {self.range[1]}"

    @model_validator(mode="after")
    def _both_ends(self) -> "Sampling":
        if self.rule == "sandwich" and self.samples == 1 and self.range[0] < self.range[1]:
            raise at("samples", "must be at least 2, not 1: the sandwich rule takes the widest and narrowest network")
        return self


class FixedWidths(Closed):
    """The same few widths in every step (S-Nets, arXiv 1812.08928), by default with BatchNorms of their own each."""

    widths: Annotated[list[Width], Field(min_length=1)]
    batch_norm: Literal["own", "shared"] = "own"

    @property
    def widest(self) -> float:
        return max(self.widths)

    @property
    def own_norms(self) -> tuple[float, ...]:
        """The widths whose BatchNorms are not the widest network's."""
        return tuple(width for width in self.widths if width < self.widest) if self.batch_norm == "own" else ()

    def has(self, width: float) -> bool:
        return width in self.widths

    def __str__(self) -> str:
        return ", ".join(str(width) for width in self.widths)

    @model_validator(mode="after")
    def _each_once(self) -> "FixedWidths":
        if len(set(self.widths)) < len(self.widths):
            raise at("widths", f"{self.widths} names a width twice; name each once")
        return self


AnySampling = Annotated[
    Annotated[Sampling, Tag("range")] | Annotated[FixedWidths, Tag("widths")],
    Discriminator(
        lambda given: "widths" if "widths" in (given if isinstance(given, dict) else vars(given)) else "range"
    ),
]

# What a loss compares a network with, and which settings it reads, besides two views of a student.
ANY_TEACHER = ("cosine", "kl", "mse", "rkd-distance", "rkd-angle", "similarity-matrix", "similarity-matrix-mse", "dino")
OTHER_TEACHER = ("infonce", "contrastive", "queue", "queue-soft-labels")
WITHOUT_TEACHER = ("nt-xent",)
BY_LABELS = ("cross-entropy", "soft-labels")
LOSSES = (*ANY_TEACHER, *OTHER_TEACHER, *WITHOUT_TEACHER, *BY_LABELS)
READ_BY = {
    "temperature": ("infonce", "nt-xent", "contrastive", "queue"),
    "student_temperature": ("kl", "dino", "queue-soft-labels"),
    "teacher_temperature": ("kl", "dino", "queue-soft-labels"),
    "queue": ("queue", "queue-soft-labels"),
}


def _known_losses(names: str) -> str:
    if not set(names.split("+")) <= set(LOSSES):
        raise ValueError(f"must be one of {', '.join(LOSSES)}, or several with + between")
    return names


Losses = Annotated[str, AfterValidator(_known_losses)]


class Features(Closed):
    """Distillation between feature maps of these layers, the student's through 1x1 convolutions; added to the other."""

    layers: Annotated[list[str], Field(min_length=1)]
    loss: Literal["mse", "cosine", "attention-spatial", "attention-channel"] = "mse"
    strength: Positive = 1.0


class Method(Closed):
    """Heads, losses and teacher; see us3l/learner.py.

    `name` fixes the heads; `base` is the loss of the widest network, `distillation` that of the others (null: they take
    the base loss too), weighted by its strength; each is a loss, or several with + between, added up. The teacher is
    the momentum encoder (`momentum`: how much of it stays in a step), or a frozen network, that of another run
    (`teacher`), or with neither the widest network itself. `queue` is a number of embeddings kept from earlier steps.
    """

    name: Literal["simclr", "byol", "simsiam", "moco", "moco-v3", "seed", "supervised"]
    base: Losses
    distillation: Losses | None = "cosine"
    distillation_strength: Positive = 1.0
    features: Features | None = None
    distillation_head: Literal["own", "shared"] = "own"
    teacher: Reference | None = None
    momentum: Probability | None = 0.99
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    momentum_update: Literal["widest", "every-width"] = "widest"
    temperature: Positive = 0.5
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    queue: Count | None = None
    hidden: Several = 2048
    output: Several = 256

    @property
    def heads(self) -> str:
        """Whose heads they are: with a teacher of its own SimSiam has BYOL's."""
        return "byol" if self.name == "simsiam" and self._has_teacher else self.name

    @property
    def predicts(self) -> bool:
        """Whether a predictor stands between the projection and the base loss."""
        return self.heads in ("byol", "simsiam", "moco-v3")

    @property
    def losses(self) -> set[str]:
        return {*self.base.split("+"), *(self.distillation or "").split("+")} - {""}

    @property
    def _has_teacher(self) -> bool:
        return self.momentum is not None or self.teacher is not None

    @model_validator(mode="after")
    def _teacher_fits(self) -> "Method":
        if self.momentum is not None and self.teacher is not None:
            raise ValueError("a frozen teacher takes the place of the momentum encoder: set momentum to null")
        if self.momentum is None:
            if self.momentum_update == "every-width":
                raise ValueError("momentum_update says how often a momentum encoder moves, and there is none")
            if self.momentum_schedule == "cosine":
                raise ValueError("momentum_schedule says how a momentum encoder slows down, and there is none")
        if self.name == "byol" and not self._has_teacher:
            raise ValueError("byol needs a momentum encoder or a frozen teacher: give momentum, or take simsiam")
        if self.name in ("moco", "moco-v3") and self.momentum is None:
            raise ValueError(f"{self.name} needs a momentum encoder: give momentum")
        if self.name == "seed" and self.teacher is None:
            raise ValueError("seed learns from a frozen teacher: name its run under teacher")
        if self.features and self.teacher is not None:
            raise ValueError("features are distilled between widths of one network: leave features or teacher out")
        if self.features and self.name == "moco":
            raise ValueError("moco's teacher sees a batch shuffled, feature maps of other images: leave features out")
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> "Method":
        base, others = self.base.split("+"), (self.distillation or self.base).split("+")
        for name in sorted(self.losses & set(OTHER_TEACHER)):
            if not self._has_teacher:
                what = f"the {name} loss compares with another network's embeddings: give momentum or teacher"
                raise ValueError(f"{what}{', or take nt-xent' if name == 'infonce' else ''}")
        if (self.name == "supervised") != ("cross-entropy" in base):
            raise ValueError("supervised training has the base loss cross-entropy, and no other method has it")
        if self.name == "supervised" and (self._has_teacher or len(base) > 1 or self.features):
            raise ValueError(
                "supervised training learns from labels alone: set momentum to null, leave teacher and features"
            )
        if self.name == "supervised" and self.distillation not in (None, "soft-labels"):
            raise ValueError("supervised training distils by soft-labels, or not at all (distillation: null)")
        if self.name != "supervised" and set(others) & set(BY_LABELS):
            raise ValueError("the loss soft-labels is that of supervised training")
        if "soft-labels" in base:
            raise ValueError("the widest network has no other to take soft-labels from: the base loss is cross-entropy")
        return self

    @model_validator(mode="after")
    def _distillation_fits(self) -> "Method":
        if self.distillation is None:
            if self.features:
                raise ValueError(
                    "features are distilled from the widest network: give distillation, or leave features out"
                )
            if self.momentum is not None and self.momentum_update == "widest":
                raise ValueError(
                    "without distillation every width needs its own target: set momentum_update to every-width"
                )
        return self

    @model_validator(mode="after")
    def _settings_are_read(self) -> "Method":
        for key, readers in READ_BY.items():
            if getattr(self, key) != type(self).model_fields[key].default and not self.losses & set(readers):
                raise at(key, f"is read by {', '.join(readers)} only, and the losses are {self._said_losses}")
        if self.queue is None and self.losses & set(READ_BY["queue"]):
            raise at("queue", f"must say how many embeddings are kept, since the losses are {self._said_losses}")
        if self.distillation is None and self.distillation_strength != 1.0:
            raise at("distillation_strength", "weighs a distillation loss, and there is none")
        return self

    @property
    def _said_losses(self) -> str:
        return ", ".join(sorted(self.losses))


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
        if getattr(self, ignored) != type(self).model_fields[ignored].default:
            raise at(ignored, f"is not read by {self.kind}: leave it out")
        return self


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
        if gpus and shards % gpus:
            raise at("resources.gpus", f"must divide the batch's shards, {shards}, not {gpus}")
        if self.method.queue and self.method.queue % self.batch.size:
            raise at(
                "method.queue", f"must be a multiple of the batch's size, {self.batch.size}, not {self.method.queue}"
            )
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
