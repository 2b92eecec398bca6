"""BatchNorm calibration in params.yaml."""

from us3l.params.schema import AtLeastTwo, PositiveInt, StrictModel, UnitInterval


class Calibration(StrictModel):
    """Calibration of one width's BatchNorm statistics: an exponential average over batches of training images."""

    passes: PositiveInt = 3
    """Passes over the training images."""
    batch_size: AtLeastTwo = 128
    """Images in a batch."""
    momentum: UnitInterval = 0.1
    """Weight of a batch in the exponential average."""
