"""Protocols in params.yaml: how each width is evaluated."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from us3l.params.calibration import Calibration
from us3l.params.optimizer import Optimizer
from us3l.params.schema import Closed, Count, Positive, Several


class ClassifierOptimizer(Optimizer):
    """SGD, or LARS where `trust` is given: see `us3l.training.optimizers.trusted`."""

    trust: Positive | None = None


class Trained(Closed):
    """What the protocols that train have in common; the result is taken after the last epoch."""

    calibration: Calibration = Calibration()
    epochs: Count
    batch_size: Count
    optimizer: Optimizer

    @model_validator(mode="after")
    def _fits_together(self) -> "Trained":
        self.optimizer.check_epochs(self.epochs)
        return self


class Linear(Trained):
    """A linear classifier on frozen features of the images, each of which is augmented anew in every epoch."""

    kind: Literal["linear"] = "linear"
    optimizer: ClassifierOptimizer


class FeaturesLinear(Trained):
    """A linear classifier on the features of the training images in the test view, which are computed once."""

    kind: Literal["features-linear"]
    optimizer: ClassifierOptimizer


class Knn(Closed):
    """The nearest neighbours in the training set vote; nothing is trained. See us3l/evaluation/knn.py."""

    kind: Literal["knn"]
    calibration: Calibration = Calibration()
    neighbours: Count = 200
    temperature: Positive = 0.1


class Finetune(Trained):
    """All weights and a fresh classifier are trained; `optimizer` is the network's.

    `classifier_lr` is the first learning rate of the classifier, the official FC_LR; null takes that of the network.
    """

    kind: Literal["finetune"]
    batch_size: Several
    classifier_lr: Positive | None = None


def _kind(protocol: Any) -> Any:
    """A protocol that names no kind is linear."""
    if isinstance(protocol, dict):
        return protocol.get("kind", "linear")
    return getattr(protocol, "kind", "linear")


Protocol = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[FeaturesLinear, Tag("features-linear")]
    | Annotated[Knn, Tag("knn")]
    | Annotated[Finetune, Tag("finetune")],
    Discriminator(
        _kind,
        custom_error_type="at_key",
        custom_error_message="must be 'linear', 'features-linear', 'knn' or 'finetune'",
        custom_error_context={"key": "kind"},
    ),
]
