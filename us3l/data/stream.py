"""The batches of an epoch, augmented and cut into shards."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from us3l.data.images import open_images
from us3l.data.resident import to_device
from us3l.data.store import Split
from us3l.params.dataset import Augmentation, Normalize
from us3l.params.runs import Batch
from us3l.utils.distributed import World
from us3l.utils.philox import Purpose, RandomKey, permutation, uniform


class Shard(NamedTuple):
    """Images that share BatchNorm statistics: two views of each [B, C, H, W], or one.

    number: index of the shard in the batch; labels: [B] int64. Where the batch is shuffled for the teacher, `shuffled`
    are the views of this shard of the shuffled batch, and `order` [batch] is the permutation of the batch.
    """

    views: tuple[Tensor, ...]
    number: int = 0
    labels: Tensor | None = None
    shuffled: tuple[Tensor, ...] | None = None
    order: Tensor | None = None


class Stream:
    """Batches of views, one per augmentation, cut into shards; an epoch's last incomplete batch is dropped.

    A shard does not depend on the process that computes it. Where batches are shuffled for the teacher (MoCo, arXiv
    1911.05722, section 3.3), each image is seen in two shards.
    """

    def __init__(
        self,
        split: Split,
        batch: Batch,
        augmentations: list[Augmentation],
        normalize: Normalize,
        seed: int,
        world: World,
        shuffled: bool = False,
    ) -> None:
        self.images, self.labels = open_images(split, world.device), to_device(split.labels, world.device)
        self.batch, self.augmentations, self.normalize = batch, augmentations, normalize
        self.seed, self.world, self.shuffled = seed, world, shuffled
        self.steps = len(self.images) // batch.size

    def shards(self, epoch: int, first: int = 0) -> Iterator[list[Shard]]:
        """Yield this process's shards for each step of an epoch, starting with step `first`."""
        batches = self._batches(epoch)[first:]
        plain = self._views(epoch, batches)
        if not self.shuffled:
            for batch, views in zip(batches, plain, strict=True):
                yield self._shards(batch, views)
            return
        orders = [self._shuffle(epoch, step) for step in range(first, self.steps)]
        shuffled = self._views(epoch, [batch[order] for batch, order in zip(batches, orders, strict=True)])
        for batch, order, views, others in zip(batches, orders, plain, shuffled, strict=True):
            yield [
                shard._replace(shuffled=other, order=order)
                for shard, other in zip(self._shards(batch, views), others, strict=True)
            ]

    def _batches(self, epoch: int) -> Tensor:
        """Return the image indices of each step of an epoch, [steps, batch]."""
        order = permutation(RandomKey(self.seed, Purpose.ORDER, epoch), len(self.images), self.world.device)
        return order[: self.steps * self.batch.size].view(self.steps, self.batch.size)

    def _shuffle(self, epoch: int, step: int) -> Tensor:
        """Return the permutation of a batch for the teacher, [batch]."""
        address = step * self.batch.size + torch.arange(self.batch.size, device=self.world.device)
        return uniform(RandomKey(self.seed, Purpose.SHUFFLE, epoch), address).flatten().argsort(stable=True)

    @property
    def _mine(self) -> range:
        return self.world.shards(self.batch.shards)

    def _views(self, epoch: int, batches: Iterable[Tensor]) -> Iterator[list[tuple[Tensor, ...]]]:
        """Yield for each batch the views of each of this process's shards, [batch.size / batch.shards, C, H, W]."""
        size, mine = self.batch.size // self.batch.shards, self._mine
        samples = [batch[mine.start * size : mine.stop * size] for batch in batches]
        key = RandomKey(self.seed, Purpose.AUGMENT, epoch)
        for views in self.images.augmented(samples, self.augmentations, self.normalize, key):
            shards = [view.to(memory_format=torch.channels_last).chunk(len(mine)) for view in views]
            yield list(zip(*shards, strict=True))

    def _shards(self, batch: Tensor, views: list[tuple[Tensor, ...]]) -> list[Shard]:
        labels = self.labels[batch].view(self.batch.shards, -1)
        return [Shard(each, number, labels[number]) for number, each in zip(self._mine, views, strict=True)]
