"""The stream of a training: labels, shards, and batches that are shuffled for MoCo's teacher."""

import numpy as np
import pytest
import torch
from torch import Tensor

from us3l.data.store import Split
from us3l.data.stream import Shard, Stream
from us3l.params.dataset import Affine, Augmentation, Normalize
from us3l.params.runs import Batch
from us3l.utils.distributed import World

CPU = torch.device("cpu")
IMAGES, BATCH, SHARDS = 40, 12, 4
MOVED = Augmentation(affine=Affine(degrees=30.0, translate=0.2, scale=(0.7, 1.3)), flip=0.5)
AS_IT_IS = Normalize(mean=[0.0], std=[1.0])


def stream(
    augmentations: list[Augmentation], rank: int = 0, size: int = 1, seed: int = 0, shuffled: bool = False
) -> Stream:
    """Of images that are all of one shade: their number, which is their label too, or else noise."""
    if augmentations == [MOVED] * 2:
        images = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 1), np.uint8)
    else:
        images = np.broadcast_to(np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (IMAGES, 8, 8, 1)).copy()
    split = Split(images, np.arange(IMAGES))
    return Stream(
        split, Batch(size=BATCH, shards=SHARDS), augmentations, AS_IT_IS, seed, World(rank, size, CPU), shuffled
    )


def numbers(view: Tensor) -> Tensor:
    return (view[:, 0, 0, 0] * 255).round().long()


def test_labels_are_those_of_the_images_and_shards_are_numbered_in_their_order() -> None:
    seen = []
    for step in stream([Augmentation()] * 2).shards(0):
        assert [shard.number for shard in step] == list(range(SHARDS))
        for shard in step:
            assert all(torch.equal(numbers(view), shard.labels) for view in shard.views)
            assert (shard.shuffled, shard.order) == (None, None)
            seen += shard.labels.tolist()
    assert len(seen) == len(set(seen)) == 36  # the last incomplete batch is dropped


def test_a_supervised_training_sees_one_view() -> None:
    assert {len(shard.views) for step in stream([Augmentation()]).shards(0) for shard in step} == {1}


def test_the_order_says_which_image_of_the_batch_lies_where() -> None:
    """MoCo (arXiv 1911.05722, section 3.3): each image is seen twice, alike, mostly in two different shards."""
    stayed = 0
    for step in stream([MOVED] * 2, shuffled=True).shards(0):
        order = step[0].order
        assert all(torch.equal(shard.order, order) for shard in step)
        assert order.sort().values.tolist() == list(range(BATCH))
        for view in range(2):
            images = torch.cat([shard.views[view] for shard in step])
            elsewhere = torch.cat([shard.shuffled[view] for shard in step])
            assert torch.equal(elsewhere, images[order])
            assert not torch.equal(elsewhere, images)
        stayed += (order // 3 == torch.arange(BATCH) // 3).sum().item()
    assert stayed < 3 * BATCH / 2


def test_steps_epochs_and_seeds_are_shuffled_differently_and_evenly() -> None:
    orders = [
        step[0].order
        for seed in range(20)
        for epoch in range(10)
        for step in stream([Augmentation()], seed=seed, shuffled=True).shards(epoch)
    ]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders) == 600
    mean = torch.stack(orders).double().mean(0)
    assert (mean - (BATCH - 1) / 2).abs().max() < 4 * ((BATCH**2 - 1) / 12 / len(orders)) ** 0.5


def test_shuffling_changes_nothing_else() -> None:
    plain, shuffled = stream([MOVED] * 2), stream([MOVED] * 2, shuffled=True)
    for ours, theirs in zip(shuffled.shards(1), plain.shards(1), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one._replace(shuffled=None, order=None), other)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_has_its_part_of_a_shuffled_batch_and_goes_on_inside_an_epoch(rank: int) -> None:
    whole = list(stream([MOVED] * 2, shuffled=True).shards(3))
    part = list(stream([MOVED] * 2, rank, size=2, shuffled=True).shards(3, first=1))
    assert len(part) == len(whole) - 1 == 2
    for ours, theirs in zip(part, whole[1:], strict=True):
        for one, other in zip(ours, theirs[2 * rank : 2 * rank + 2], strict=True):
            assert_same(one, other)


def assert_same(one: Shard, other: Shard) -> None:
    for field, ours, theirs in zip(Shard._fields, one, other, strict=True):
        if isinstance(ours, tuple):
            assert all(map(torch.equal, ours, theirs)), field
        else:
            assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs, field
