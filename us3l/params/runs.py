"""Runs in params.yaml: what is trained, or what stands in the place of a training."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from us3l.params.backbone import AnyBackbone, Backbone, BackboneOrPixels
from us3l.params.method import Method
from us3l.params.optimizer import Regularizer, TrainingOptimizer
from us3l.params.sampling import AnySampling, Sampling
from us3l.params.schema import (
    Name,
    NonNegativeInt,
    PositiveInt,
    Reference,
    StrictModel,
    Text,
    Width,
    error_at,
    matching,
    rising,
)


class Batch(StrictModel):
    """Images in a step over all processes, and the shards within which BatchNorm and negatives are computed."""

    size: PositiveInt
    shards: PositiveInt = 1

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
    threads: PositiveInt = 1
    memory_mb: PositiveInt = 2000
    shards_at_once: PositiveInt | None = None


class UntrainedRun(StrictModel):
    """A network as it is initialized: a baseline that no training went into. `backbone` as in a training, or pixels."""

    kind: Literal["untrained"]
    dataset: Name
    backbone: BackboneOrPixels
    resources: Resources = Resources()

    sampling: ClassVar[Sampling] = Sampling()


class ImportRun(StrictModel):
    """A checkpoint of the official code in the place of a training, of every width.

    See us3l/models/official_checkpoint.py.
    """

    kind: Literal["import"]
    checkpoint: Text
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
    method: Method
    dataset: Name
    backbone: AnyBackbone
    epochs: PositiveInt
    batch: Batch
    optimizer: TrainingOptimizer
    regularizer: Regularizer | None = None
    sampling: AnySampling = Sampling()
    precision: Literal["float32", "bfloat16"] = "float32"
    resources: Resources = Resources()

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
    weights_from: Reference
    dataset: Name
    protocol: Name | None = None
    resources: Resources = Resources()


class PruneRun(StrictModel):
    """The checkpoint of another run with its least channels cut off: a width is the share that is kept.

    The data set and the backbone are that run's. `criterion`: L1 norms of filters, or of BatchNorms' weights.
    """

    kind: Literal["prune"]
    weights_from: Reference
    criterion: Literal["filters", "batch-norm"]
    resources: Resources = Resources()

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
