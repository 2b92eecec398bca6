"""The images of a training, in the order and with the augmentation that seed, epoch and step alone determine."""

from collections.abc import Iterator

import torch
from torch import Tensor

from us3l.data.images import open_images
from us3l.data.store import Split
from us3l.distributed import World
from us3l.errors import UserError
from us3l.params.data import Augmentation, Normalize
from us3l.params.training import Batch
from us3l.random import Purpose, permutation
from us3l.views import Views


class Stream:
    """Batches of two augmented views, cut into shards; the last incomplete batch of an epoch is dropped.

    Which process computes a shard changes nothing in it.
    """

    def __init__(
        self, split: Split, batch: Batch, recipes: list[Augmentation], normalize: Normalize, seed: int, world: World
    ) -> None:
        self.images = open_images(split, world.device)
        self.batch, self.recipes, self.normalize, self.seed, self.world = batch, recipes, normalize, seed, world
        self.steps = len(self.images) // batch.size
        if self.steps == 0:
            raise UserError(f"batch.size is {batch.size}, but there are only {len(self.images)} training images")

    def shards(self, epoch: int, first: int = 0) -> Iterator[list[Views]]:
        """This process's shards of each step of an epoch from the `first` on.

        They are two views [batch.size / batch.shards, C, H, W] each.
        """
        mine = self.world.shards(self.batch.shards)
        batches = self._samples(epoch)[first:, mine.start : mine.stop].flatten(1).unbind()
        where = {"seed": self.seed, "purpose": Purpose.AUGMENT, "epoch": epoch}
        for views in self.images.augmented(batches, self.recipes, self.normalize, **where):
            shards = [view.to(memory_format=torch.channels_last).chunk(len(mine)) for view in views]
            yield list(zip(*shards, strict=True))

    def _samples(self, epoch: int) -> Tensor:
        """The images of an epoch [steps, shards, images of a shard]."""
        order = permutation(self.seed, Purpose.ORDER, epoch, len(self.images), self.world.device)
        return order[: self.steps * self.batch.size].view(self.steps, self.batch.shards, -1)
