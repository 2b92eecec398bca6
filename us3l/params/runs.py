"""Runs in params.yaml: what is trained, or what stands in the place of a training."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from us3l.params.backbone import AnyBackbone, Backbone, BackboneOrPixels
from us3l.params.method import Method
from us3l.params.optimizer import Regularizer, TrainingOptimizer
from us3l.params.sampling import AnySampling, Sampling
from us3l.params.schema import (
    Closed,
    Count,
    Line,
    Name,
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


class Resources(Closed):
    """What one training asks of the machine; it changes the speed, never the result, so no fingerprint holds it.

    `shards_at_once` is for a GPU whose memory does not hold all shards of a process together, which are the default.
    """

    gpus: Whole = 1
    threads: Count = 1
    memory_mb: Count = 2000
    shards_at_once: Count | None = None


class Untrained(Closed):
    """A network as it is initialized: a baseline that no training went into. `backbone` as in a training, or pixels."""

    method: Literal["none"]
    dataset: Name
    backbone: BackboneOrPixels
    resources: Resources = Resources()

    sampling: ClassVar[Sampling] = Sampling()


class Official(Closed):
    """A checkpoint of the official code in the place of a training, of every width.

    See us3l/models/official_checkpoint.py.
    """

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
    """One training.

    `backbone` is a name, or `module:function` for a user's own: see us3l/models/backbones/custom.py.
    """

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
