"""BatchNorm calibration in params.yaml."""

from us3l.params.schema import Closed, Count, Several, Share


class Calibration(Closed):
    """BatchNorm statistics of one width: passes over the training images, exponential average with this momentum."""

    passes: Count = 3
    batch_size: Several = 128
    momentum: Share = 0.1
