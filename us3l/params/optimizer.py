"""Optimizers, learning rates and regularizers in params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from us3l.params.schema import (
    Float,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    Probability,
    StrictModel,
    error_at,
)


class Optimizer(StrictModel):
    """SGD with a learning rate that is constant within an epoch; see us3l/training/lr_schedule.py."""

    lr: PositiveFloat
    """Largest learning rate."""
    momentum: Annotated[Float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay (L2)."""
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    """Schedule of the learning rate over the epochs."""
    milestones: Annotated[list[PositiveInt], Field(default_factory=list)]
    """Epochs at which the learning rate drops to a tenth (multistep)."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs of linear warm-up of the learning rate from 0."""

    @model_validator(mode="after")
    def _milestones(self) -> "Optimizer":
        if (self.schedule == "multistep") != bool(self.milestones):
            what = "milestones belong to the multistep schedule, and it needs them"
            raise ValueError(f"{what}; {self.schedule} has {self.milestones}")
        if self.milestones != sorted(set(self.milestones)):
            raise error_at("milestones", f"must rise, not {self.milestones}")
        return self

    def check_epochs(self, epochs: int) -> None:
        """Raise an error where the last milestone or the warm-up is not below the number of epochs."""
        if self.milestones and self.milestones[-1] >= epochs:
            raise error_at("optimizer.milestones", f"must be below the {epochs} epochs, not {self.milestones}")
        if self.warmup_epochs >= epochs:
            raise error_at("optimizer.warmup_epochs", f"must be below the {epochs} epochs, not {self.warmup_epochs}")


class TrainingOptimizer(Optimizer):
    """SGD with `momentum`, or AdamW (arXiv 1711.05101) with `betas`."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """SGD, or AdamW (arXiv 1711.05101)."""
    betas: tuple[OpenUnitInterval, OpenUnitInterval] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    rate: Literal["epoch", "step"] = "epoch"
    """Whether the learning rate changes every epoch or every step."""

    @model_validator(mode="after")
    def _settings_are_read(self) -> "TrainingOptimizer":
        ignored = "momentum" if self.kind == "adamw" else "betas"
        if self.sets(ignored):
            raise error_at(ignored, f"is not read by {self.kind}: leave it out")
        return self


READ_BY = {
    "alpha": ("group", "group-l1-batchnorm"),
    "decay": ("group",),
    "groups": ("group", "group-l1-batchnorm"),
    "by": ("group",),
    "warmup_epochs": ("group", "l1-batchnorm", "group-l1-batchnorm"),
}


class Regularizer(StrictModel):
    """A penalty on all weights at every step; `group` weakens it from the first channels to the last, `l2` does not.

    Two penalize only the absolute values of BatchNorms' weights and biases, after the warm-up: `l1-batchnorm`, and
    `group-l1-batchnorm`, which grows from 0 by alpha per group. `by` selects the axis that `group` divides: output
    channels of BatchNorms and convolutions, or input features of matrices, which vision transformers slim.
    """

    kind: Literal["group", "l2", "l1-batchnorm", "group-l1-batchnorm"]
    """Penalty: group (US3L), l2, or L1 on BatchNorms as a whole or by groups."""
    strength: PositiveFloat
    """Coefficient of the penalty; the official lambda, half a weight decay."""
    alpha: Probability = 0.05
    """Parameter of the relative strength of group i: 1 - alpha i (linear), alpha^i (exponential) or alpha i (L1)."""
    decay: Literal["linear", "exponential"] = "linear"
    """Decrease of the strength from group to group."""
    groups: PositiveInt = 8
    """Number of groups of channels; the official bins."""
    by: Literal["output-channel", "input-feature"] = "output-channel"
    """Axis divided into groups: output channels of BatchNorms and convolutions, or input features (ViT)."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs in which all groups have the same strength, and L1 penalties are off."""

    @property
    def is_l1(self) -> bool:
        return self.kind in ("l1-batchnorm", "group-l1-batchnorm")

    @model_validator(mode="after")
    def _settings_are_read(self) -> "Regularizer":
        for key, readers in READ_BY.items():
            if self.kind not in readers and self.sets(key):
                raise error_at(key, f"is read by {', '.join(readers)} only, and the kind is {self.kind}")
        return self

    @model_validator(mode="after")
    def _never_negative(self) -> "Regularizer":
        if self.kind == "group" and self.decay == "linear" and self.alpha * (self.groups - 1) > 1:
            what = f"must be at most {1 / (self.groups - 1):.3g}, or the last of {self.groups} groups would grow"
            raise error_at("alpha", f"{what}, not {self.alpha}")
        return self
