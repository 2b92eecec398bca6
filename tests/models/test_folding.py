"""Networks with folded BatchNorms, against the same networks with BatchNorms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.batch_norms import BatchNorm, batch_norms
from us3l.models.folding import fold_batch_norms

CONVOLUTIONAL = [name for name in BUILT_IN if "resnet" in name or "mobilenet" in name]


def settled(name: str, width: float) -> nn.Module:
    """Build a network whose BatchNorms scale and shift each channel differently."""
    torch.manual_seed(0)
    network = Backbone(name, 3).build(width)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight.data, norm.running_var):
                values.uniform_(0.5, 1.5)
            for values in (norm.bias.data, norm.running_mean):
                values.uniform_(-0.5, 0.5)
    return network.eval()


def images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side)


def left(network: nn.Module) -> int:
    return len(batch_norms(network, BatchNorm))


def require_the_same(network: nn.Module, x: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        expected, ours = network(x), fold_batch_norms(network)(x)
    torch.testing.assert_close(ours / expected.std(), expected / expected.std(), rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_no_batch_norm_is_left_and_the_features_are_the_same(name: str) -> None:
    network = settled(name, 0.3)
    assert left(network) and not left(fold_batch_norms(network))
    require_the_same(network, images(32 if "cifar" in name or "small" in name else 64), 1e-10)


@pytest.mark.parametrize(
    "name", ["small-resnet", "cifar-resnet18", "cifar-resnet50", "cifar-mobilenetv1", "cifar-mobilenetv2"]
)
def test_in_float32_they_are_the_same_within_rounding(name: str) -> None:
    require_the_same(settled(name, 0.5), images(), 1e-5)


@pytest.mark.parametrize("name", ["pixels", "vit-tiny"])
def test_a_network_without_batch_norms_is_what_it_was(name: str) -> None:
    network = settled(name, 0.5)
    assert fold_batch_norms(network) is network


def test_the_network_itself_keeps_its_batch_norms() -> None:
    network = settled("small-resnet", 0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold_batch_norms(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Halved(nn.BatchNorm2d):
    """A BatchNorm that computes something else than its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Branching(nn.Module):
    """A module that takes another path for many images."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[len(x) > 4 :]:
            x = layer(x)
        return x


class Own(nn.Module):
    """A network that reads its layers' weights, which tracing its layers does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)).mean((2, 3)) * self.layer.weight.norm()


Change = Callable[[nn.Module, nn.Module], None]  # of a network and its first block


def changed(change: Change) -> nn.Module:
    network = settled("small-resnet", 0.5)
    change(network, network.layer1[0])
    return network.eval()


def share_a_convolution(network: nn.Module, block: nn.Module) -> None:
    block.conv2 = block.conv1


def put_something_between(network: nn.Module, block: nn.Module) -> None:
    block.conv1 = nn.Sequential(block.conv1, nn.Tanh())


def normalize_otherwise(network: nn.Module, block: nn.Module) -> None:
    block.bn1 = Halved(len(block.bn1.weight))


def take_an_output_twice(network: nn.Module, block: nn.Module) -> None:
    """Let a BatchNorm and the shortcut read the same output."""
    network.bn1 = network.relu = network.maxpool = block.conv1 = nn.Sequential()


def branch(network: nn.Module, block: nn.Module) -> None:
    block.conv1, block.bn1 = Branching(block.conv1, block.bn1), nn.Identity()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "change", [share_a_convolution, put_something_between, normalize_otherwise, take_an_output_twice, branch]
)
def test_a_batch_norm_stays_where_it_is_not_alone_with_its_convolution(change: Change) -> None:
    network = changed(change)
    assert 0 < left(fold_batch_norms(network)) < left(network)
    require_the_same(network, images(), 1e-10)


@pytest.mark.usefixtures("float64")
def test_a_users_own_network_is_not_folded() -> None:
    network = Own().eval()
    assert left(fold_batch_norms(network)) == 1
    require_the_same(network, images(), 1e-10)
