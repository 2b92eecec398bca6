"""Fine-tuning in params.yaml."""

from typing import ClassVar, Literal

from us3l.params.protocols.trained import TrainedProtocol
from us3l.params.schema import AtLeastTwo, PositiveFloat


class Finetune(TrainedProtocol):
    """Training of all weights with a new classifier; `optimizer` is that of the network."""

    title: ClassVar[str] = "Accuracy after fine-tuning"
    action: ClassVar[str] = "Fine-tuning"

    kind: Literal["finetune"]
    """Fine-tuning."""
    batch_size: AtLeastTwo
    """Images in a batch."""
    classifier_lr: PositiveFloat | None = None
    """Largest learning rate of the classifier, the official FC_LR; null takes the network's."""
