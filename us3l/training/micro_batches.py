"""Micro-batches: how many images of a step go through a network in one forward pass.

A GPU takes all of them, since it is busy with few but large operations. A CPU takes shard by shard what its cache
holds, so that every number of processes computes the same bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from us3l.data.stream import Shard
from us3l.models.backbones.backbone import Backbone
from us3l.models.heads import Output
from us3l.params.runs import PretrainRun

Encoder = Callable[[Tensor, int], Output]  # of images [groups * B, C, H, W], and the number of groups
MicroBatch = Sequence[Shard]

CACHE = 2**13  # pixels, of which a layer of 32 channels takes a megabyte


@dataclass(frozen=True)
class MicroBatching:
    """shards: how many go together; pixels: how many these may have, in all views, for their views to go together."""

    shards: int
    pixels: float

    def split(self, shards: Sequence[Shard]) -> list[MicroBatch]:
        """Split the shards of a step into those that go together."""
        return [shards[first : first + self.shards] for first in range(0, len(shards), self.shards)]

    def encode(self, encoder: Encoder, views: Sequence[Sequence[Tensor]]) -> list[Output]:
        """Encode each view, given by its shards [B, C, H, W]; an output holds them one after the other."""
        groups = [shard for shards in views for shard in shards]
        if sum(group[:, 0].numel() for group in groups) <= self.pixels:
            return encoder(torch.cat(groups), len(groups)).chunk(len(views))
        return [encoder(torch.cat(list(shards)), len(shards)) for shards in views]


def one_by_one(encoder: Encoder) -> Encoder:
    """Return an encoder that passes each group through `encoder` alone, without feature maps."""

    def encode(images: Tensor, groups: int) -> Output:
        embeddings = torch.cat([encoder(group, 1).projection for group in images.chunk(groups)])
        return Output(embeddings, embeddings, [])

    return encode


def micro_batching_on(device: torch.device, run: PretrainRun, backbone: Backbone) -> MicroBatching:
    """Choose what suits a device; a backbone that may mix groups sees one view of one shard, on a GPU too."""
    if not backbone.separates_groups:
        return MicroBatching(1, 0)
    if device.type == "cuda":
        return MicroBatching(run.resources.shards_at_once or run.batch.shards, math.inf)
    return MicroBatching(1, CACHE)
