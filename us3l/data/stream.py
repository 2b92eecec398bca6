"""The images of a step: views of a batch's shards, and which views losses compare."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from us3l.data.images import open_images
from us3l.data.resident import resident
from us3l.data.store import Split
from us3l.params.dataset import Augmentation, Normalize
from us3l.params.runs import Batch
from us3l.utils.distributed import World
from us3l.utils.philox import Purpose, RandomKey, permutation, uniform


class Shard(NamedTuple):
    """Images within which BatchNorm's statistics are taken: two views of each [B, C, H, W], or one.

    number: which shard of the batch it is; labels: [B] int64. Where the batch is shuffled for the teacher, `shuffled`
    are views of the images that lie in this shard then, and `order` [batch] says which image of the batch lies where.
    """

    views: tuple[Tensor, ...]
    number: int = 0
    labels: Tensor | None = None
    shuffled: tuple[Tensor, ...] | None = None
    order: Tensor | None = None


class Stream:
    """Batches of augmented views, one by each recipe, cut into shards; an epoch's last incomplete batch is dropped.

    Which process computes a shard changes nothing in it. Of batches that are shuffled for the teacher (MoCo, arXiv
    1911.05722, section 3.3), each image is seen in two shards.
    """

    def __init__(
        self,
        split: Split,
        batch: Batch,
        recipes: list[Augmentation],
        normalize: Normalize,
        seed: int,
        world: World,
        shuffled: bool = False,
    ) -> None:
        self.images, self.labels = open_images(split, world.device), resident(split.labels, world.device)
        self.batch, self.recipes, self.normalize, self.seed, self.world = batch, recipes, normalize, seed, world
        self.shuffled = shuffled
        self.steps = len(self.images) // batch.size

    def shards(self, epoch: int, first: int = 0) -> Iterator[list[Shard]]:
        """This process's shards of each step of an epoch from the `first` on."""
        batches = self._batches(epoch)[first:]
        seen = self._seen(epoch, batches)
        if not self.shuffled:
            for batch, shards in zip(batches, seen, strict=True):
                yield self._shards(batch, shards)
            return
        orders = [self._shuffle(epoch, step) for step in range(first, self.steps)]
        elsewhere = self._seen(epoch, [batch[order] for batch, order in zip(batches, orders, strict=True)])
        for batch, order, shards, others in zip(batches, orders, seen, elsewhere, strict=True):
            yield [
                shard._replace(shuffled=other, order=order)
                for shard, other in zip(self._shards(batch, shards), others, strict=True)
            ]

    def _batches(self, epoch: int) -> Tensor:
        """The images of each step of an epoch [steps, batch]."""
        order = permutation(RandomKey(self.seed, Purpose.ORDER, epoch), len(self.images), self.world.device)
        return order[: self.steps * self.batch.size].view(self.steps, self.batch.size)

    def _shuffle(self, epoch: int, step: int) -> Tensor:
        """Which image of the batch lies where, for the teacher [batch]."""
        address = step * self.batch.size + torch.arange(self.batch.size, device=self.world.device)
        return uniform(RandomKey(self.seed, Purpose.SHUFFLE, epoch), address).flatten().argsort(stable=True)

    @property
    def _mine(self) -> range:
        return self.world.shards(self.batch.shards)

    def _seen(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[list[tuple[Tensor, ...]]]:
        """For each of the batches, the views of each of this process's shards [batch.size / batch.shards, C, H, W]."""
        size, mine = self.batch.size // self.batch.shards, self._mine
        samples = [batch[mine.start * size : mine.stop * size] for batch in batches]
        key = RandomKey(self.seed, Purpose.AUGMENT, epoch)
        for views in self.images.augmented(samples, self.recipes, self.normalize, key):
            shards = [view.to(memory_format=torch.channels_last).chunk(len(mine)) for view in views]
            yield list(zip(*shards, strict=True))

    def _shards(self, batch: Tensor, views: list[tuple[Tensor, ...]]) -> list[Shard]:
        labels = self.labels[batch].view(self.batch.shards, -1)
        return [Shard(each, number, labels[number]) for number, each in zip(self._mine, views, strict=True)]
