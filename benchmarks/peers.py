"""Other packages that do the same: `pip install us3l[bench]` installs them."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.compare import Side
from benchmarks.setting import Setting
from us3l.params.dataset import Augmentation, Normalize

PEERS = ("kornia", "lightly")


def versions() -> dict[str, str]:
    found = {}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            continue
    return found


def side(peer: str, make: Callable[[], Side]) -> Side | None:
    """Build the side of a peer; None if the package is not installed."""
    return make() if find_spec(peer) else None


def kornia_view(augmentation: Augmentation, normalize: Normalize, device: torch.device) -> nn.Module:
    """Build an augmentation of images [B, C, H, W], with the operations that CIFAR's has; each image draws its own."""
    from kornia.augmentation import ColorJitter, RandomGrayscale, RandomHorizontalFlip, RandomResizedCrop
    from kornia.augmentation import Normalize as KorniaNormalize

    steps: list[Any] = []
    if crop := augmentation.resized_crop:
        size, how = (crop.size, crop.size), crop.interpolation.upper()
        mode = "resample" if device.type == "cuda" else "slice"  # slices are cut one by one, which suits a CPU better
        steps.append(RandomResizedCrop(size, crop.scale, crop.ratio, resample=how, cropping_mode=mode))
    if jitter := augmentation.color_jitter:
        strengths = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        steps.append(ColorJitter(*strengths, p=jitter.probability))
    if augmentation.grayscale:
        steps.append(RandomGrayscale(p=augmentation.grayscale))
    if augmentation.flip:
        steps.append(RandomHorizontalFlip(p=augmentation.flip))
    mean, std = (torch.tensor(values) for values in (normalize.mean, normalize.std))
    return nn.Sequential(*steps, KorniaNormalize(mean, std)).to(device)


class LightlyTrainer:
    """Lightly's SimCLR at full width: its loss and projection head, with both views in one forward pass."""

    def __init__(self, backbone: nn.Module, setting: Setting) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        self.method, settings = setting.run.method, setting.run.optimizer
        sizes = backbone.num_features, self.method.projector.hidden, self.method.projector.output
        head = SimCLRProjectionHead(*sizes, num_layers=3)
        self.network = nn.Sequential(backbone, head).to(setting.device)
        self.loss = NTXentLoss(self.method.temperature)
        self.optimizer = torch.optim.SGD(self.network.parameters(), settings.lr, settings.momentum)
        bfloat16 = setting.run.precision == "bfloat16"
        self.precision = torch.autocast(setting.device.type, torch.bfloat16, enabled=bfloat16)

    def step(self, views: tuple[Tensor, Tensor]) -> None:
        with self.precision:
            first, second = self.network(torch.cat(views)).chunk(2)
            loss = self.loss(first, second)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def lightly_move(encoder: nn.Module, online: nn.Module, momentum: float) -> None:
    from lightly.models.utils import update_momentum

    update_momentum(online, encoder, momentum)
