"""What an evaluation protocol makes of a network."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Result:
    """Logits of the test images [N, classes], and the weights that were trained for them, by name; empty for kNN.

    Names begin with `classifier.` for the linear classifier, and with `backbone.` for what fine-tuning made of the
    network.
    """

    logits: Tensor
    trained: dict[str, Tensor] = field(default_factory=dict)

    def on_cpu(self) -> "Result":
        return Result(self.logits.cpu(), {name: weights.cpu() for name, weights in self.trained.items()})
