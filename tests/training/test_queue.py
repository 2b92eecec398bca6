"""The queue of embeddings, and the types in which losses compare them."""

import pytest
import torch
from torch.nn import functional as F

from us3l.losses.registry import at_least_float32
from us3l.training.queue import Queue


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
def test_the_oldest_embeddings_are_replaced_first_in_turn(batch: int) -> None:
    queue, noise = Queue(6, 4, 0, torch.device("cpu")), torch.randn(18, 4, generator=torch.Generator().manual_seed(1))
    expected = queue.values.clone()
    for first in range(0, 18, batch):
        queue.enqueue(noise[first : first + batch])
        expected[first % 6 : first % 6 + batch] = F.normalize(noise[first : first + batch], dim=1)
        assert torch.equal(queue.values, expected)
        assert queue.position.tolist() == [(first + batch) % 6]


def test_losses_compare_in_float32_at_least() -> None:
    types = (torch.bfloat16, torch.float32, torch.float64)
    made = at_least_float32(torch.ones(2, dtype=each) for each in types)
    assert [each.dtype for each in made] == [torch.float32, torch.float32, torch.float64]
