"""Micro-batches: the images of a step that go through a network in one forward pass.

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
    """shards: number of shards in a micro-batch; pixels: number up to which all views of it share one forward pass."""

    shards: int
    pixels: float

    def split(self, shards: Sequence[Shard]) -> list[MicroBatch]:
        """Split the shards of a step into micro-batches."""
        return [shards[first : first + self.shards] for first in range(0, len(shards), self.shards)]

    def encode(self, encoder: Encoder, views: Sequence[Sequence[Tensor]]) -> list[Output]:
        """Encode each view, given as its shards [B, C, H, W]; an output concatenates the shards of one view."""
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
    """Choose the micro-batches for a device; a backbone that may mix groups gets one view of one shard, always."""
    if not backbone.separates_groups:
        return MicroBatching(1, 0)
    if device.type == "cuda":
        return MicroBatching(run.resources.shards_at_once or run.batch.shards, math.inf)
    return MicroBatching(1, CACHE)
