"""BatchNorm calibration in params.yaml."""

from us3l.params.schema import AtLeastTwo, PositiveInt, StrictModel, UnitInterval


class Calibration(StrictModel):
    """BatchNorm statistics of one width: passes over the training images, exponential average with this momentum."""

    passes: PositiveInt = 3
    """Passes over the training images."""
    batch_size: AtLeastTwo = 128
    """Images in a batch."""
    momentum: UnitInterval = 0.1
    """Weight of a batch in the running average."""
