"""Linear evaluation in params.yaml."""

from typing import ClassVar, Literal

from us3l.params.protocols.trained import ClassifierOptimizer, TrainedProtocol


class Linear(TrainedProtocol):
    """A linear classifier on frozen features; the images are augmented anew in every epoch."""

    title: ClassVar[str] = "Linear accuracy"
    action: ClassVar[str] = "Linear evaluation of"

    kind: Literal["linear"] = "linear"
    """Linear evaluation."""
    optimizer: ClassifierOptimizer
    """Optimizer of the classifiers."""


class FeaturesLinear(TrainedProtocol):
    """A linear classifier on the features of the training images in the test view, which are computed once."""

    title: ClassVar[str] = "Accuracy of a linear classifier on stored features"
    action: ClassVar[str] = "Linear evaluation on stored features of"

    kind: Literal["features-linear"]
    """Linear evaluation on features that are computed once."""
    optimizer: ClassifierOptimizer
    """Optimizer of the classifiers."""
