"""The BatchNorms of a network, and the names of their parameters."""

from torch import nn

from us3l.models.batch_norms import BatchNorm, batch_norm_parameters


def test_batch_norms_are_known_by_their_modules() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(3)))
    assert set(batch_norm_parameters(network, BatchNorm)) == {"1.weight", "1.bias", "2.0.weight", "2.0.bias"}
    assert set(batch_norm_parameters(nn.BatchNorm1d(3), BatchNorm)) == {"weight", "bias"}
    assert set(batch_norm_parameters(network, nn.BatchNorm2d)) == {"2.0.weight", "2.0.bias"}
