"""Protocols in params.yaml: how each width is evaluated."""

from pydantic import model_validator

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


class Protocol(Closed):
    """A linear classifier on frozen features; the result is taken after the last epoch."""

    calibration: Calibration = Calibration()
    epochs: Count
    batch_size: Count
    optimizer: ProbeOptimizer

    @model_validator(mode="after")
    def _fits_together(self) -> "Protocol":
        self.optimizer.check_epochs(self.epochs)
        return self
