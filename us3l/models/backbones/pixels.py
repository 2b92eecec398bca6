"""The pixels themselves as features."""

from torch import Tensor, nn


class Pixels(nn.Module):
    """The pixels [B, C*H*W] of images [B, C, H, W] as features: the baseline for every learned one."""

    def __init__(self, width: float, in_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
