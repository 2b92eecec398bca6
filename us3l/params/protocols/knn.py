"""Nearest neighbours in params.yaml."""

from typing import ClassVar, Literal

from us3l.params.protocols.calibration import Calibration
from us3l.params.schema import PositiveFloat, PositiveInt, StrictModel


class Knn(StrictModel):
    """A vote of the nearest neighbours in the training set, without training; see us3l/evaluation/knn.py."""

    title: ClassVar[str] = "k-nearest-neighbour accuracy"
    action: ClassVar[str] = "Nearest neighbours of"

    kind: Literal["knn"]
    """k nearest neighbours."""
    calibration: Calibration = Calibration()
    """Calibration of the BatchNorms before the evaluation."""
    neighbours: PositiveInt = 200
    """Number of neighbours that vote."""
    temperature: PositiveFloat = 0.1
    """Temperature of the votes' weights, exp(cosine / temperature)."""
