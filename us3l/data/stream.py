"""The images of a training, in the order and with the augmentation that seed, epoch and step alone determine."""

import torch
from torch import Tensor

from us3l.data.augment import augment
from us3l.data.resident import resident
from us3l.data.store import Split
from us3l.distributed import World
from us3l.errors import UserError
from us3l.params.data import Augmentation, Normalize
from us3l.params.training import Batch
from us3l.random import Purpose, permutation
from us3l.views import Views


class Stream:
    """Batches of two augmented views, cut into shards; the last incomplete batch of an epoch is dropped.

    The images lie on the device whole, as bytes. Which process computes a shard changes nothing in it.
    """

    def __init__(
        self, split: Split, batch: Batch, recipes: list[Augmentation], normalize: Normalize, seed: int, world: World
    ) -> None:
        self.images = resident(split.images, world.device)
        self.batch, self.recipes, self.normalize, self.seed, self.world = batch, recipes, normalize, seed, world
        self.steps = len(split.images) // batch.size
        if self.steps == 0:
            raise UserError(f"batch.size is {batch.size}, but there are only {len(split.images)} training images")

    def order(self, epoch: int) -> Tensor:
        """The training images of an epoch [N], in order."""
        return permutation(self.seed, Purpose.ORDER, epoch, len(self.images), self.world.device)

    def shards(self, order: Tensor, epoch: int, step: int) -> list[Views]:
        """This process's shards of a step: two views [batch.size / batch.shards, C, H, W] each."""
        batch = order[step * self.batch.size : (step + 1) * self.batch.size].view(self.batch.shards, -1)
        mine = self.world.shards(self.batch.shards)
        samples = batch[mine.start : mine.stop].flatten()
        images = self.images[samples]
        where = {"seed": self.seed, "purpose": Purpose.AUGMENT, "epoch": epoch, "samples": samples}
        views = [augment(images, recipe, self.normalize, **where, view=i) for i, recipe in enumerate(self.recipes)]
        shards = [view.to(memory_format=torch.channels_last).chunk(len(mine)) for view in views]
        return list(zip(*shards, strict=True))
