"""Nearest neighbours in params.yaml."""

from typing import ClassVar, Literal

from us3l.params.protocols.calibration import Calibration
from us3l.params.schema import PositiveFloat, PositiveInt, StrictModel


class Knn(StrictModel):
    """The nearest neighbours in the training set vote; nothing is trained. See us3l/evaluation/knn.py."""

    title: ClassVar[str] = "k-nearest-neighbour accuracy"
    action: ClassVar[str] = "Nearest neighbours of"

    kind: Literal["knn"]
    calibration: Calibration = Calibration()
    neighbours: PositiveInt = 200
    temperature: PositiveFloat = 0.1
