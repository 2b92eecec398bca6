"""Protocols in params.yaml: how each width is evaluated."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from us3l.params.schema import Closed, Count, Positive, Several, Share
from us3l.params.training import Optimizer


class ProbeOptimizer(Optimizer):
    """SGD, or LARS where `trust` is given: see `us3l.sgd.trusted`."""

    trust: Positive | None = None


class Calibration(Closed):
    """BatchNorm statistics of one width: passes over the training images, exponential average with this momentum."""

    passes: Count = 3
    batch_size: Several = 128
    momentum: Share = 0.1


class Linear(Closed):
    """A linear classifier on frozen features; the result is taken after the last epoch."""

    kind: Literal["linear"] = "linear"
    calibration: Calibration = Calibration()
    epochs: Count
    batch_size: Count
    optimizer: ProbeOptimizer

    @model_validator(mode="after")
    def _fits_together(self) -> "Linear":
        self.optimizer.check_epochs(self.epochs)
        return self


class FeaturesLinear(Closed):
    kind: Literal["features-linear"]
    calibration: Calibration = Calibration()
    epochs: Count


class Knn(Closed):
    kind: Literal["knn"]
    calibration: Calibration = Calibration()


class Finetune(Closed):
    kind: Literal["finetune"]
    calibration: Calibration = Calibration()
    epochs: Count


def _linear_by_default(given: Any) -> Any:
    return {"kind": "linear", **given} if isinstance(given, dict) else given


Protocol = Annotated[
    Annotated[Linear | FeaturesLinear | Knn | Finetune, Field(discriminator="kind")],
    BeforeValidator(_linear_by_default),
]
