"""Runs in params.yaml: trainings, and the kinds of runs that replace a training."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag, model_validator

from us3l.params.backbone import AnyBackbone, Backbone, BackboneOrPixels
from us3l.params.method import Method
from us3l.params.optimizer import Regularizer, TrainingOptimizer
from us3l.params.sampling import AnySampling, FixedWidths, Sampling
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
    require_distinct,
    rising,
)


class Batch(StrictModel):
    """The batch of a step, and its shards."""

    size: PositiveInt
    """Images in a step, over all processes."""
    shards: PositiveInt = 1
    """Equal parts of the batch with their own BatchNorm statistics and negatives: the official number of GPUs."""

    @model_validator(mode="after")
    def _divides(self) -> "Batch":
        if self.size % self.shards:
            raise ValueError(f"{self.shards} shards do not divide a batch of {self.size}")
        if self.size < 2 * self.shards:
            what = f"must be at least {2 * self.shards}, 2 images for the batch statistics of each shard"
            raise error_at("size", f"{what}, not {self.size}")
        return self


class Resources(StrictModel):
    """Resources of a job; they change the speed, never the result, so they are not part of a fingerprint.

    `shards_at_once` is for a GPU whose memory is too small for all shards of a process together.
    """

    gpus: NonNegativeInt = 1
    """GPUs of a training, one process each; 0 is the CPU."""
    nodes: PositiveInt = 1
    """Nodes of a training, which have the same number of its GPUs each, or one process each on the CPU."""
    threads: PositiveInt = 1
    """CPU threads of each process."""
    memory_mb: PositiveInt = 2000
    """Memory in megabytes that Snakemake reserves, on each node."""
    shards_at_once: PositiveInt | None = None
    """Shards of a process that pass through the network together on a GPU; null takes all."""

    @model_validator(mode="after")
    def _nodes_are_alike(self) -> "Resources":
        if self.gpus % self.nodes:
            raise error_at("nodes", f"must divide the gpus, {self.gpus}, not {self.nodes}")
        return self


class Monitor(StrictModel):
    """A look at what a training learns, at the widest, a middle and the narrowest width; it changes nothing in it.

    Nearest neighbours, effective rank (RankMe, arXiv 2210.02885) and spread of the features of at most 1,024 training
    and 512 test images.
    """

    every: PositiveInt = 10
    """Epochs between two looks; the last epoch is looked at, too."""
    stop_on_collapse: Annotated[bool, Strict()] = False
    """End the training after an epoch in which the embeddings of all images became nearly the same."""


class Metrics(StrictModel):
    """Where the numbers of a training's steps are written, besides a CSV file; they change nothing in it."""

    every: PositiveInt = 50
    """Steps between two rows."""
    tensorboard: Annotated[bool, Strict()] = False
    """Write them for TensorBoard, too, in logs/tensorboard/."""
    dvclive: Annotated[bool, Strict()] = False
    """Write them with DVCLive, too, in logs/dvclive/."""


class UntrainedRun(StrictModel):
    """An untrained network, as a baseline. `backbone` is a network as in a training, or pixels."""

    kind: Literal["untrained"]
    """An untrained network."""
    dataset: Name
    """Data set to evaluate on."""
    backbone: BackboneOrPixels
    """Network: a built-in name, module:function, or pixels."""
    resources: Resources = Resources()
    """Resources of a job."""

    sampling: ClassVar[Sampling] = Sampling()


class ImportRun(StrictModel):
    """A checkpoint that others published instead of a training: US3L, SlimCLR, S-Nets or US-Nets.

    See docs/published-checkpoints.md; `us3l import` prints this entry.
    """

    kind: Literal["import"]
    """A checkpoint that others published."""
    checkpoint: Text
    """Path of the file."""
    sha256: Annotated[str, Matching(r"[0-9a-f]{64}", "64 hexadecimal digits, in lower case")]
    """SHA-256 of the file, in hexadecimal digits."""
    dataset: Name
    """Data set to evaluate on."""
    backbone: Backbone
    """Network in the file."""
    range: Annotated[tuple[Width, Width], AfterValidator(rising)] | None = None
    """Narrowest and widest width multiplier of its training; null is [0.25, 1.0] where there are no widths."""
    widths: Annotated[list[Width], Field(min_length=1, max_length=100)] | None = None
    """Width multipliers of a file with BatchNorms of each width, instead of a range; in any order."""
    resources: Resources = Resources()
    """Resources of a job."""

    @property
    def sampling(self) -> Sampling | FixedWidths:
        """Widths of the checkpoint."""
        return FixedWidths(widths=self.widths) if self.widths else Sampling(range=self.range or (0.25, 1.0))

    @model_validator(mode="after")
    def _widest_is_there(self) -> "ImportRun":
        if self.range and self.widths:
            raise error_at("widths", "must not stand beside range: BatchNorms are of each width, or the same for all")
        if self.widths:
            require_distinct(self.widths, "widths", "width")
        if max(self.widths or self.range or (1.0,)) != 1.0:
            key = "widths" if self.widths else "range"
            what = "must have" if self.widths else "must end at"
            widest = max(self.widths or self.range or ())
            raise error_at(key, f"{what} 1.0, the width of the weights in a checkpoint, not {widest}")
        return self


class PretrainRun(StrictModel):
    """A training. `backbone` is a name, or `module:function` for a user's own: us3l/models/backbones/custom.py."""

    kind: Literal["pretrain"] = "pretrain"
    """A training."""
    method: Method
    """Method: the name of one, or its settings."""
    dataset: Name
    """Data set to train and to evaluate on."""
    backbone: AnyBackbone
    """Network: a built-in name, or module:function."""
    epochs: PositiveInt
    """Passes over the training images."""
    batch: Batch
    """Batch of a step."""
    optimizer: TrainingOptimizer
    """Optimizer of all weights."""
    regularizer: Regularizer | None = None
    """Penalty on the weights; null: none."""
    sampling: AnySampling = Sampling()
    """Widths to train: a range, a list, or one width."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Floating-point type of forward and backward passes; weights and losses are float32."""
    monitor: Monitor | None = None
    """A look at what is learned, every few epochs; null: none."""
    metrics: Metrics = Metrics()
    """Where the numbers of the steps are written."""
    resources: Resources = Resources()
    """Resources of a job."""

    @model_validator(mode="after")
    def _fits_together(self) -> "PretrainRun":
        self.optimizer.check_epochs(self.epochs)
        decay, shards = self.optimizer.weight_decay, self.batch.shards
        if self.regularizer and decay:
            raise error_at("optimizer.weight_decay", f"must be 0 where a regularizer takes its place, not {decay}")
        warmup = self.regularizer.warmup_epochs if self.regularizer else 0
        if warmup >= self.epochs:
            raise error_at("regularizer.warmup_epochs", f"must be below the {self.epochs} epochs, not {warmup}")
        for key, count in (("gpus", self.resources.gpus or 1), ("nodes", self.resources.nodes)):
            if shards % count:
                raise error_at(f"resources.{key}", f"must divide the batch's shards, {shards}, not {count}")
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
        """True if the widest network of a step differs from step to step."""
        return isinstance(self.sampling, Sampling) and self.sampling.rule == "uniform"


class ReuseRun(StrictModel):
    """The calibrated networks of another run, evaluated on another data set or by another protocol.

    The protocol's calibration is not used.
    """

    kind: Literal["reuse"]
    """The networks of another run, evaluated differently."""
    weights_from: Reference
    """Run whose calibrated networks are evaluated, RUN or STUDY/RUN."""
    dataset: Name
    """Data set to evaluate on."""
    protocol: Name | None = None
    """Protocol of the evaluation; null takes the study's."""
    resources: Resources = Resources()
    """Resources of a job."""


class PruneRun(StrictModel):
    """The checkpoint of another run, pruned: a width is the share of channels that is kept, those of largest norm.

    The data set and the backbone are those of the other run.
    """

    kind: Literal["prune"]
    """The widest network of another run, pruned."""
    weights_from: Reference
    """Run whose checkpoint is pruned, RUN or STUDY/RUN."""
    criterion: Literal["filters", "batch-norm"]
    """Norm by which channels are ranked: the L1 norm of a channel's filter, or of its BatchNorm's weight."""
    resources: Resources = Resources()
    """Resources of a job."""

    sampling: ClassVar[Sampling] = Sampling()


def _kind(run: Any) -> Any:
    """Return the kind of a run; the default is a training."""
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
