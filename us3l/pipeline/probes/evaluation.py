"""Short forms of calibrations and evaluation protocols for probes: a few batches, a few steps of a classifier."""

from typing import Any

from us3l.params.protocols.calibration import Calibration
from us3l.params.protocols.knn import Knn
from us3l.params.protocols.protocol import Protocol
from us3l.pipeline.probes.sample import IMAGES

EPOCHS = 3
BATCH = 6  # so that the last batch of the sample is smaller


def short_calibration(calibration: Calibration) -> Calibration:
    """Return a calibration of at most two passes over the sample, in small batches."""
    return calibration.model_copy(update={"passes": min(2, calibration.passes), "batch_size": BATCH})


def short_protocol(protocol: Protocol) -> Protocol:
    """Return a protocol with fewer neighbours than the sample has images, or of a few epochs, in small batches.

    Warm-up and milestones of the learning rate keep their order.
    """
    if isinstance(protocol, Knn):
        return protocol.model_copy(update={"neighbours": min(IMAGES // 2, protocol.neighbours)})
    epochs = min(EPOCHS, protocol.epochs)
    optimizer: dict[str, Any] = {
        "warmup_epochs": min(1, protocol.optimizer.warmup_epochs),
        "milestones": [min(number + 1, milestone) for number, milestone in enumerate(protocol.optimizer.milestones)],
    }
    shorter = {"epochs": epochs, "batch_size": BATCH, "optimizer": protocol.optimizer.model_copy(update=optimizer)}
    return protocol.model_copy(update=shorter)
