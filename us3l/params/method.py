"""Methods in params.yaml: heads, losses and teacher."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from us3l.params.schema import (
    AtLeastTwo,
    PositiveFloat,
    PositiveInt,
    Probability,
    Reference,
    StrictModel,
    Text,
    error_at,
    require_distinct,
)

# Losses by the teacher that they need, and the settings that only some of them read.
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
    each = names.split("+")
    if not set(each) <= set(LOSSES):
        raise ValueError(f"must be one of {', '.join(LOSSES)}, or several with + between")
    if len(set(each)) < len(each):
        raise ValueError("must name each loss once")
    return names


Losses = Annotated[str, AfterValidator(_known_losses)]


class FeatureDistillation(StrictModel):
    """Distillation between feature maps, the student's through 1x1 convolutions; added to the distillation loss."""

    layers: Annotated[list[Text], Field(min_length=1)]
    """Names of the backbone's layers whose outputs are compared."""
    loss: Literal["mse", "cosine", "attention-spatial", "attention-channel"] = "mse"
    """Loss between the feature maps."""
    strength: PositiveFloat = 1.0
    """Weight of this loss."""

    @property
    def compares_positions(self) -> bool:
        """True if the compared maps must have the same height and width."""
        return self.loss in ("mse", "attention-spatial")

    @model_validator(mode="after")
    def _each_once(self) -> "FeatureDistillation":
        require_distinct(self.layers, "layers", "layer")
        return self


class Projector(StrictModel):
    """Sizes of the layers of the projector and the predictors."""

    hidden: AtLeastTwo = 2048
    """Features of the hidden layers of projector and predictor."""
    output: AtLeastTwo = 256
    """Features of the embeddings."""


class Method(StrictModel):
    """Heads, losses and teacher; see us3l/training/step.py.

    `name` selects the heads; `base_loss` is the loss of the widest network, `distillation_loss` that of the narrower
    ones (null: they take the base loss, too), weighted by its strength. Each is one loss or a sum, joined by +. The
    teacher is the momentum encoder, the frozen network of another run (`teacher`), or, with neither, the widest network
    itself.
    """

    name: Literal["simclr", "byol", "simsiam", "moco", "moco-v3", "seed", "supervised"]
    """Method whose heads are trained: SimCLR, BYOL, SimSiam, MoCo v2, MoCo v3, SEED, or a supervised classifier."""
    base_loss: Losses
    """Loss of the widest network: one loss, or a sum joined by +."""
    distillation_loss: Losses | None = "cosine"
    """Loss of the narrower networks: one loss, or a sum joined by +; null: the base loss."""
    distillation_strength: PositiveFloat = 1.0
    """Weight of the distillation loss; the official DISTILL_LAMBDA."""
    feature_distillation: FeatureDistillation | None = None
    """Distillation between feature maps, added to the distillation loss."""
    distillation_head: Literal["separate", "shared"] = "separate"
    """separate: the narrower networks have their own predictor; shared: they use that of the widest."""
    teacher: Reference | None = None
    """Run whose network is the frozen teacher, RUN or STUDY/RUN."""
    momentum: Probability | None = 0.99
    """Momentum of the momentum encoder, the share of its weights that a step keeps; null: no momentum encoder."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """cosine: the momentum rises to 1 at the end of the training (MoCo v3)."""
    momentum_update: Literal["widest", "every-width"] = "widest"
    """widest: the momentum encoder is updated once per batch; every-width: once for each width of the batch."""
    temperature: PositiveFloat = 0.5
    """Temperature of the contrastive losses."""
    student_temperature: PositiveFloat = 0.1
    """Temperature of the student's softmax in kl, dino and queue-soft-labels."""
    teacher_temperature: PositiveFloat = 0.04
    """Temperature of the teacher's softmax in kl, dino and queue-soft-labels."""
    queue: PositiveInt | None = None
    """Number of embeddings kept from earlier steps; a multiple of the batch's size."""
    projector: Projector = Projector()
    """Sizes of the projector and the predictors."""

    @property
    def heads(self) -> str:
        """Method whose heads are built: SimSiam with a teacher has those of BYOL."""
        return "byol" if self.name == "simsiam" and self._has_teacher else self.name

    @property
    def predicts(self) -> bool:
        """True if a predictor is applied to the projection before the base loss."""
        return self.heads in ("byol", "simsiam", "moco-v3")

    @property
    def losses(self) -> set[str]:
        return {*self.base_loss.split("+"), *(self.distillation_loss or "").split("+")} - {""}

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
        if self.feature_distillation and self.teacher is not None:
            raise ValueError(
                "feature maps are distilled between widths of one network: leave feature_distillation or teacher out"
            )
        if self.feature_distillation and self.name == "moco":
            raise ValueError(
                "moco's teacher sees a batch shuffled, maps of other images: leave feature_distillation out"
            )
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> "Method":
        base, others = self.base_loss.split("+"), (self.distillation_loss or self.base_loss).split("+")
        for name in sorted(self.losses & set(OTHER_TEACHER)):
            if not self._has_teacher:
                what = f"the {name} loss compares with another network's embeddings: give momentum or teacher"
                raise ValueError(f"{what}{', or take nt-xent' if name == 'infonce' else ''}")
        if self._has_teacher and not self.feature_distillation and self.losses <= set(WITHOUT_TEACHER):
            what = "no loss compares with the momentum encoder or the frozen teacher"
            raise ValueError(f"{what}: set momentum to null and leave teacher out, or take another loss than nt-xent")
        if {"queue", "queue-soft-labels"} <= self.losses:
            raise ValueError("queue and queue-soft-labels keep embeddings of different views: take one of them")
        if (self.name == "supervised") != ("cross-entropy" in base):
            raise ValueError("supervised training has the base loss cross-entropy, and no other method has it")
        if self.name == "supervised" and len(base) > 1:
            raise ValueError(f"supervised training has the base loss cross-entropy alone, not {self.base_loss}")
        if self.name == "supervised" and (self._has_teacher or self.feature_distillation):
            raise ValueError(
                "supervised training learns from labels: set momentum to null, give no teacher or feature_distillation"
            )
        if self.name == "supervised" and self.distillation_loss not in (None, "soft-labels"):
            raise ValueError("supervised training distils by soft-labels, or not at all (distillation_loss: null)")
        if self.name != "supervised" and set(others) & set(BY_LABELS):
            raise ValueError("the loss soft-labels is that of supervised training")
        if "soft-labels" in base:
            raise ValueError("the widest network has no other to take soft-labels from: the base loss is cross-entropy")
        return self

    @model_validator(mode="after")
    def _distillation_fits(self) -> "Method":
        if self.distillation_loss is None:
            if self.feature_distillation:
                raise ValueError("feature_distillation is from the widest network, and needs a distillation_loss")
            if self.momentum is not None and self.momentum_update == "widest":
                raise ValueError(
                    "without distillation every width needs its own target: set momentum_update to every-width"
                )
        return self

    @model_validator(mode="after")
    def _settings_are_read(self) -> "Method":
        for key, readers in READ_BY.items():
            if self.sets(key) and not self.losses & set(readers):
                raise error_at(key, f"is read by {', '.join(readers)} only, and the losses are {self._losses_text}")
        if self.name == "supervised" and self.sets("projector"):
            raise error_at("projector", "is not read: supervised training has no projector; leave it out")
        if self.queue is None and self.losses & set(READ_BY["queue"]):
            raise error_at("queue", f"must say how many embeddings are kept, since the losses are {self._losses_text}")
        if self.distillation_head == "shared" and self.heads == "simsiam":
            raise error_at(
                "distillation_head", "is not read: simsiam without a teacher has one head anyway; leave it out"
            )
        if self.distillation_loss is None and self.sets("distillation_strength"):
            raise error_at("distillation_strength", "weighs a distillation loss, and there is none")
        return self

    @property
    def _losses_text(self) -> str:
        return ", ".join(sorted(self.losses))
