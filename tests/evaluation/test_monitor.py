"""What a monitor sees of features."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from us3l.data.store import Split, Store
from us3l.evaluation.monitor import effective_rank, look
from us3l.params.dataset import Views

VIEWS = Views.model_validate({"normalize": {"mean": [0.5], "std": [0.5]}, "pretrain": [{}, {}]})
CPU = torch.device("cpu")


def digits(classes: int) -> Store:
    """Images of a bright column, each class with its own, and a dot at a random place."""
    draw = np.random.default_rng(0)
    labels = np.arange(64) % classes
    images = np.zeros((64, 8, 8, 1), np.uint8)
    images[np.arange(64), :, labels] = 255
    images[np.arange(64), draw.integers(0, 8, 64), draw.integers(0, 8, 64)] = 255
    return Store(Split(images, labels), Split(images[:32], labels[:32]), tuple(map(str, range(classes))), "")


class Constant(nn.Module):
    """A network that has collapsed: all images have the same features."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 16)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_of_features_in_orthogonal_directions_is_their_number(rank: int) -> None:
    directions = torch.eye(8)[:rank].repeat(16, 1)
    assert effective_rank(directions) == pytest.approx(rank, rel=1e-4)


def test_the_effective_rank_is_between_those_of_its_directions_where_they_weigh_differently() -> None:
    """Singular values 3 and 1: exp of the entropy of 3/4 and 1/4."""
    features = torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(features) == pytest.approx((4 / 3) ** 0.75 * 4**0.25, rel=1e-4)


def test_features_that_are_all_zero_have_no_rank() -> None:
    assert effective_rank(torch.zeros(4, 3)) == pytest.approx(1, abs=1e-3)


def test_a_collapsed_network_is_told_from_one_that_sees_something() -> None:
    seen = look([nn.Flatten(), Constant()], digits(4), VIEWS, CPU)
    assert seen["knn"] == [100.0, 25.0]
    assert seen["rank"][0] > 3 and seen["rank"][1] == pytest.approx(1, abs=1e-2)
    assert seen["spread"][0] > 0.1 and seen["spread"][1] == pytest.approx(0, abs=1e-6)


def test_images_of_one_class_have_no_neighbours_to_vote() -> None:
    assert look([nn.Flatten()], digits(1), VIEWS, CPU).keys() == {"rank", "spread"}


def test_a_monitor_draws_no_numbers_and_sees_the_same_again() -> None:
    network, state = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), torch.get_rng_state()
    first = look([network], digits(4), VIEWS, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    fresh = nn.Sequential(network[0], nn.BatchNorm2d(4), nn.Flatten())
    assert look([fresh], digits(4), VIEWS, CPU) == first
