"""The common settings of protocols that train."""

from pydantic import model_validator

from us3l.params.optimizer import Optimizer
from us3l.params.protocols.calibration import Calibration
from us3l.params.schema import PositiveFloat, PositiveInt, StrictModel


class ClassifierOptimizer(Optimizer):
    """SGD, or LARS where `trust_coefficient` is given: see `us3l.training.optimizers.trusted`."""

    trust_coefficient: PositiveFloat | None = None
    """Trust coefficient of LARS (arXiv 1708.03888); null: plain SGD."""


class TrainedProtocol(StrictModel):
    """A protocol that trains; its result is taken after the last epoch."""

    calibration: Calibration = Calibration()
    """Calibration of the BatchNorms before the evaluation."""
    epochs: PositiveInt
    """Epochs of training."""
    batch_size: PositiveInt
    """Images in a batch."""
    optimizer: Optimizer
    """Optimizer of the trained weights."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainedProtocol":
        self.optimizer.check_epochs(self.epochs)
        return self
