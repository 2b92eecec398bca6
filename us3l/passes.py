"""How many of a step's images go through a network in one forward pass: all on a GPU, one view of one shard on a CPU.

A GPU is busy with few but large operations. A CPU is faster with what its cache holds, and shard by shard every number
of processes computes the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from us3l.models.heads import Output
from us3l.params.training import Pretrained, is_own
from us3l.views import Shard

Encoder = Callable[[Tensor, int], Output]  # of images [groups * B, C, H, W], and the number of groups


@dataclass(frozen=True)
class Passes:
    """shards: how many go together; views: whether both of their views do."""

    shards: int
    views: bool

    def pieces(self, shards: Sequence[Shard]) -> list[Sequence[Shard]]:
        """The shards that go together."""
        return [shards[first : first + self.shards] for first in range(0, len(shards), self.shards)]

    def outputs(self, encode: Encoder, views: Sequence[Sequence[Tensor]]) -> list[Output]:
        """What is made of each view: of its shards, [B, C, H, W] each, one after the other."""
        if not self.views:
            return [encode(torch.cat(list(shards)), len(shards)) for shards in views]
        groups = [shard for shards in views for shard in shards]
        return encode(torch.cat(groups), len(groups)).chunk(len(views))


def passes_on(device: torch.device, run: Pretrained) -> Passes:
    """What suits a device.

    A user's own network sees one view of one shard, on a GPU too: only BatchNorms are known to keep groups apart.
    """
    together = device.type == "cuda" and not is_own(run.backbone)
    at_once = run.resources.shards_at_once or run.batch.shards
    return Passes(at_once if together else 1, together)
