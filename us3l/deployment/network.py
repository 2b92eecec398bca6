"""A network to deploy: a plain network of one width with its normalization and, where there is one, its classifier."""

from copy import deepcopy

import torch
from PIL import Image
from torch import Tensor, nn

from us3l.deployment.config import Config
from us3l.deployment.transform import to_image
from us3l.models.folding import fold_batch_norms
from us3l.utils.errors import UserError


class Network(nn.Module):
    """A network for images [B, C, H, W] float32 in [0, 1]: logits [B, classes], or features [B, F] without classifier.

    It is in evaluation mode, and owns nothing that slims: backbone and classifier are ordinary modules.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, config: Config, classifier: nn.Linear | None = None) -> None:
        super().__init__()
        self.backbone, self.config, self.classifier = backbone, config, classifier
        for name in ("mean", "std"):
            of_channels = torch.tensor(getattr(config.normalize, name))[:, None, None]
            self.register_buffer(name, of_channels, persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self._normalized(images))
        return features if self.classifier is None else self.classifier(features)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the last feature map [B, C, h, w] of each resolution, by the layer's name, as detectors take them.

        Raises UserError for a network that has no method `feature_maps`.
        """
        if not hasattr(self.backbone, "feature_maps"):
            what = "has no feature maps: give it a method feature_maps(x), which returns them by name"
            raise UserError(f"{self.config.architecture} {what}")
        return self.backbone.feature_maps(self._normalized(images))  # type: ignore[operator]  # torch's stub

    def transform(self, image: Image.Image) -> Tensor:
        """Turn an image into what the network takes, [C, H, W] float32 in [0, 1], as the evaluation did.

        Raises UserError where the network was never evaluated, so that nothing says how.
        """
        return to_image(image, self.config)

    def fold(self) -> "Network":
        """Return a copy for inference, its BatchNorms folded into the convolutions before them, channels last."""
        return Network(fold_batch_norms(deepcopy(self.backbone)), self.config, self.classifier)

    def _normalized(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
