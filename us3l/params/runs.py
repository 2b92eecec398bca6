"""Runs in params.yaml: what is trained, or what stands in the place of a training."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from us3l.params.backbone import AnyBackbone, Backbone, BackboneOrPixels
from us3l.params.method import Method
from us3l.params.optimizer import Regularizer, TrainingOptimizer
from us3l.params.sampling import AnySampling, Sampling
from us3l.params.schema import (
    Matching,
    Name,
    NonNegativeInt,
    PositiveInt,
    Reference,
    StrictModel,
    Text,
    Width,
    error_at,
    rising,
)


class Batch(StrictModel):
    """Images in a step over all processes, and the shards within which BatchNorm and negatives are computed."""

    size: PositiveInt
    """Images in a step, over all processes."""
    shards: PositiveInt = 1
    """Equal parts of the batch within which BatchNorm and negatives are computed: the official number of GPUs."""

    @model_validator(mode="after")
    def _divides(self) -> "Batch":
        if self.size % self.shards:
            raise ValueError(f"{self.shards} shards do not divide a batch of {self.size}")
        if self.size < 2 * self.shards:
            what = f"must be at least {2 * self.shards}, 2 images for the batch statistics of each shard"
            raise error_at("size", f"{what}, not {self.size}")
        return self


class Resources(StrictModel):
    """What one training asks of the machine; it changes the speed, never the result, so no fingerprint holds it.

    `shards_at_once` is for a GPU whose memory does not hold all shards of a process together, which are the default.
    """

    gpus: NonNegativeInt = 1
    """GPUs of a training, one process each; 0 is the CPU."""
    threads: PositiveInt = 1
    """CPU threads of each process."""
    memory_mb: PositiveInt = 2000
    """Memory in megabytes that Snakemake counts with."""
    shards_at_once: PositiveInt | None = None
    """Shards of a process that go through the network together on a GPU; null takes all."""


class UntrainedRun(StrictModel):
    """A network as it is initialized: a baseline that no training went into. `backbone` as in a training, or pixels."""

    kind: Literal["untrained"]
    """A network as it is initialized."""
    dataset: Name
    """Data set to evaluate on."""
    backbone: BackboneOrPixels
    """Network: a built-in name, module:function, or pixels."""
    resources: Resources = Resources()
    """What a job asks of the machine."""

    sampling: ClassVar[Sampling] = Sampling()


class ImportRun(StrictModel):
    """A checkpoint of the official code in the place of a training, of every width.

    See us3l/models/official_checkpoint.py.
    """

    kind: Literal["import"]
    """A checkpoint of the official code."""
    checkpoint: Text
    """Path of the file."""
    sha256: Annotated[str, Matching(r"[0-9a-f]{64}", "64 hexadecimal digits, in lower case")]
    """SHA-256 of the file, in hexadecimal digits."""
    dataset: Name
    """Data set to evaluate on."""
    backbone: Backbone
    """Network that the file holds."""
    range: Annotated[tuple[Width, Width], AfterValidator(rising)] = (0.25, 1.0)
    """Narrowest and widest width multiplier that it was trained at."""
    resources: Resources = Resources()
    """What a job asks of the machine."""

    @property
    def sampling(self) -> Sampling:
        """The widths that it holds."""
        return Sampling(range=self.range)

    @model_validator(mode="after")
    def _widest_is_there(self) -> "ImportRun":
        if self.range[1] != 1.0:
            raise error_at(
                "range", f"must end at 1.0, the width of the weights in an official checkpoint, not {self.range[1]}"
            )
        return self


class PretrainRun(StrictModel):
    """One training.

    `backbone` is a name, or `module:function` for a user's own: see us3l/models/backbones/custom.py.
    """

    kind: Literal["pretrain"] = "pretrain"
    """A training."""
    method: Method
    """How it learns: a named method, or its settings."""
    dataset: Name
    """Data set to train and to evaluate on."""
    backbone: AnyBackbone
    """Network: a built-in name, or module:function."""
    epochs: PositiveInt
    """Passes over the training images."""
    batch: Batch
    """Images of a step."""
    optimizer: TrainingOptimizer
    """Optimizer of all weights."""
    regularizer: Regularizer | None = None
    """Penalty on all weights; null: none."""
    sampling: AnySampling = Sampling()
    """Widths of a step: a range, a list, or one width."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Floating-point type of the networks' passes; weights and losses are float32."""
    resources: Resources = Resources()
    """What a job asks of the machine."""

    @model_validator(mode="after")
    def _fits_together(self) -> "PretrainRun":
        self.optimizer.check_epochs(self.epochs)
        decay, gpus, shards = self.optimizer.weight_decay, self.resources.gpus, self.batch.shards
        if self.regularizer and decay:
            raise error_at("optimizer.weight_decay", f"must be 0 where a regularizer takes its place, not {decay}")
        warmup = self.regularizer.warmup_epochs if self.regularizer else 0
        if warmup >= self.epochs:
            raise error_at("regularizer.warmup_epochs", f"must be below the {self.epochs} epochs, not {warmup}")
        if gpus and shards % gpus:
            raise error_at("resources.gpus", f"must divide the batch's shards, {shards}, not {gpus}")
        if self.method.queue and self.method.queue % self.batch.size:
            raise error_at(
                "method.queue", f"must be a multiple of the batch's size, {self.batch.size}, not {self.method.queue}"
            )
        if self.method.feature_distillation and self.method.momentum is None and self._widest_varies:
            what = "the teacher's feature maps would have other channels in every step"
            raise error_at(
                "sampling.rule", f"without a momentum encoder {what}: take sandwich, or leave feature_distillation out"
            )
        return self

    @property
    def _widest_varies(self) -> bool:
        """Whether the widest network of a step is not the same in all of them."""
        return isinstance(self.sampling, Sampling) and self.sampling.rule == "uniform"


class ReuseRun(StrictModel):
    """The calibrated networks of another run, evaluated on another data set or by another protocol: no training.

    A protocol that is left out is the study's; the protocol's calibration has no part in it.
    """

    kind: Literal["reuse"]
    """Another run's networks, evaluated otherwise."""
    weights_from: Reference
    """Run whose calibrated networks are evaluated, RUN or STUDY/RUN."""
    dataset: Name
    """Data set to evaluate on."""
    protocol: Name | None = None
    """Protocol of the evaluation; null takes the study's."""
    resources: Resources = Resources()
    """What a job asks of the machine."""


class PruneRun(StrictModel):
    """The checkpoint of another run with its least channels cut off: a width is the share that is kept.

    The data set and the backbone are that run's. `criterion`: L1 norms of filters, or of BatchNorms' weights.
    """

    kind: Literal["prune"]
    """Another run's widest network, pruned."""
    weights_from: Reference
    """Run whose checkpoint is pruned, RUN or STUDY/RUN."""
    criterion: Literal["filters", "batch-norm"]
    """What a channel weighs: the L1 norm of its filter, or of its BatchNorm's weight."""
    resources: Resources = Resources()
    """What a job asks of the machine."""

    sampling: ClassVar[Sampling] = Sampling()


def _kind(run: Any) -> Any:
    """Kind of a run; one that names none is a training."""
    if isinstance(run, dict):
        return run.get("kind", "pretrain")
    return getattr(run, "kind", "pretrain")


Run = Annotated[
    Annotated[PretrainRun, Tag("pretrain")]
    | Annotated[ReuseRun, Tag("reuse")]
    | Annotated[PruneRun, Tag("prune")]
    | Annotated[ImportRun, Tag("import")]
    | Annotated[UntrainedRun, Tag("untrained")],
    Discriminator(
        _kind,
        custom_error_type="at_key",
        custom_error_message="must be 'pretrain', 'reuse', 'prune', 'import' or 'untrained'",
        custom_error_context={"key": "kind"},
    ),
]
