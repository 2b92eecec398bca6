"""How many of a step's images go through a network in one forward pass: all on a GPU, what the cache holds on a CPU.

A GPU is busy with few but large operations. Shard by shard, every number of processes computes the same bits on a CPU.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from us3l.data.stream import Shard
from us3l.models.heads import Output
from us3l.params.backbone import is_own
from us3l.params.runs import Pretrained

Encoder = Callable[[Tensor, int], Output]  # of images [groups * B, C, H, W], and the number of groups

CACHE = 2**13  # pixels, of which a layer of 32 channels takes a megabyte


@dataclass(frozen=True)
class Passes:
    """shards: how many go together; pixels: how many these may have, in all views, for their views to go together."""

    shards: int
    pixels: float

    def pieces(self, shards: Sequence[Shard]) -> list[Sequence[Shard]]:
        """The shards that go together."""
        return [shards[first : first + self.shards] for first in range(0, len(shards), self.shards)]

    def outputs(self, encode: Encoder, views: Sequence[Sequence[Tensor]]) -> list[Output]:
        """What is made of each view: of its shards, [B, C, H, W] each, one after the other."""
        groups = [shard for shards in views for shard in shards]
        if sum(group[:, 0].numel() for group in groups) <= self.pixels:
            return encode(torch.cat(groups), len(groups)).chunk(len(views))
        return [encode(torch.cat(list(shards)), len(shards)) for shards in views]


def one_by_one(encode: Encoder) -> Encoder:
    """An encoder that sees each group alone, as a user's own network has to, and makes no feature maps."""

    def encode_each(images: Tensor, groups: int) -> Output:
        embeddings = torch.cat([encode(group, 1).projection for group in images.chunk(groups)])
        return Output(embeddings, embeddings, [])

    return encode_each


def passes_on(device: torch.device, run: Pretrained) -> Passes:
    """What suits a device.

    A user's own network sees one view of one shard, on a GPU too: only BatchNorms are known to keep groups apart.
    """
    if is_own(run.backbone):
        return Passes(1, 0)
    if device.type == "cuda":
        return Passes(run.resources.shards_at_once or run.batch.shards, math.inf)
    return Passes(1, CACHE)
