"""A slimmable network at a width, against a plain network of that width with the leading slices."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.models.backbones import vit
from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.slimmable import Slimmable, narrow, switch_batch_norms
from us3l.training.flat_parameters import FlatParameters, pack_grads

pytestmark = pytest.mark.usefixtures("float64")
CPU = torch.device("cpu")
ODD_WIDTHS = (0.61, 0.37)
TRAINED = [name for name in BUILT_IN if name != "pixels"]


def widest(name: str, in_channels: int = 3) -> FlatParameters:
    """Return noise for the weights of a widest network, BatchNorms' included."""
    with torch.device("meta"):
        network = Backbone(name, in_channels).build(1.0)
    generator = torch.Generator().manual_seed(0)
    noise = {key: 0.1 * torch.randn(p.shape, generator=generator) for key, p in network.named_parameters()}
    return FlatParameters({key: p.requires_grad_() for key, p in noise.items()}, CPU)


def plain(name: str, width: float, weights: dict[str, Tensor], in_channels: int = 3) -> nn.Module:
    """Build the plain network of a width, and fill it by hand."""
    with torch.device("meta"):
        network = Backbone(name, in_channels).build(width)
    network.to_empty(device="cpu")
    for key, p in network.named_parameters():
        leading = weights[key]
        for axis, size in enumerate(p.shape):
            leading = leading.narrow(axis, 0, size)
        p.data = leading.clone()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return network.train()


def images(channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TRAINED)
def test_outputs_and_gradients_are_those_of_a_plain_network_of_the_leading_slices(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit, "DEPTH", 2)  # all blocks are alike
    flat, slimmable = widest(name), Slimmable(lambda w: Backbone(name, 3).build(w))
    x = images(size=16 if name.startswith(("small", "cifar")) else 64)
    for width in ODD_WIDTHS:
        slices = slimmable.slices(width)
        leaves, expected = flat.leaves(slices), plain(name, width, flat.parameters)
        features, expected_features = slimmable(leaves, width, x), expected(x)
        torch.testing.assert_close(features, expected_features, rtol=0, atol=1e-10)

        direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
        (features * direction).sum().backward()
        (expected_features * direction).sum().backward()
        for key, gradient in flat.views(flat.scatter_grads(pack_grads(leaves.values()), slices)).items():
            torch.testing.assert_close(
                gradient, padded(expected.get_parameter(key).grad, gradient.shape), rtol=1e-9, atol=1e-9, msg=key
            )


def padded(leading: Tensor, shape: torch.Size) -> Tensor:
    """Pad a leading part with zeros to a shape."""
    pads = [pad for here, all_of_it in zip(leading.shape, shape, strict=True) for pad in (all_of_it - here, 0)]
    return F.pad(leading, pads[::-1])


def test_every_width_sees_the_weights_as_they_are_now() -> None:
    flat, slimmable = widest("small-resnet", 1), Slimmable(lambda w: Backbone("small-resnet", 1).build(w))
    for width in (1.0, 0.37, 1.0, 0.61):
        flat.values += 0.01
        features = slimmable(flat.leaves(slimmable.slices(width)), width, images(1))
        expected = plain("small-resnet", width, flat.parameters, 1)(images(1))
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)


class Rectangle(nn.Module):
    """A user's network of linear layers only, whose number of hidden units depends on the width."""

    def __init__(self, width: float) -> None:
        super().__init__()
        hidden = round(10 * width)
        self.enter, self.norm, self.leave = nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.norm(self.enter(x)).relu())


def test_a_users_own_network_becomes_slimmable() -> None:
    wide, slimmable = Rectangle(1.0), Slimmable(Rectangle)
    weights = {name: p.detach() for name, p in wide.named_parameters()}
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    for width, k in ((1.0, 10), (0.7, 7), (0.31, 3)):
        cut = {name: weights[name][piece] for name, piece in slimmable.slices(width).items()}
        hidden = x @ weights["enter.weight"][:k].T + weights["enter.bias"][:k]
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
        expected = hidden.clamp(min=0) @ weights["leave.weight"][:, :k].T + weights["leave.bias"]
        torch.testing.assert_close(slimmable(cut, width, x), expected, rtol=0, atol=1e-12)


class Table(nn.Module):
    """A user's network with a non-persistent buffer."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.layer = nn.Linear(round(8 * width), 3)
        self.register_buffer("positions", torch.arange(round(8 * width)) / 8, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, : self.layer.in_features] + self.positions)


def test_a_networks_own_buffers_have_their_values() -> None:
    weights = {name: p.detach() for name, p in Table(1.0).named_parameters()}
    slimmable, x = Slimmable(Table), torch.randn(5, 8, generator=torch.Generator().manual_seed(4))
    cut = {name: weights[name][piece] for name, piece in slimmable.slices(0.5).items()}
    before = torch.get_rng_state()
    features = slimmable(cut, 0.5, x)
    expected = (x[:, :4] + torch.arange(4) / 8) @ weights["layer.weight"][:, :4].T + weights["layer.bias"]
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_slimmable_network_leaves_no_trace_of_a_forward_pass() -> None:
    """BatchNorms use batch statistics only, so that widths and teacher cannot disturb one another."""
    flat, slimmable = widest("small-resnet"), Slimmable(lambda w: Backbone("small-resnet", 3).build(w))
    leaves = flat.leaves(slimmable.slices(0.5))
    first = slimmable(leaves, 0.5, images())
    slimmable(leaves, 0.5, images() * 100 + 3)
    assert torch.equal(slimmable(leaves, 0.5, images()), first)
    assert not dict(slimmable.meta_module(0.5).named_buffers())


def test_a_slimmable_network_runs_in_training_mode() -> None:
    dropped = Slimmable(lambda width: nn.Dropout(0.5))({}, 1.0, torch.ones(1000))
    assert 0.3 < (dropped == 0).double().mean() < 0.7


def test_a_narrowed_network_keeps_its_weights_when_the_wide_ones_change() -> None:
    flat = widest("small-resnet")
    network = narrow(flat.parameters, Backbone("small-resnet", 3).build(0.37))
    expected = plain("small-resnet", 0.37, flat.parameters)(images())
    flat.values.zero_()
    torch.testing.assert_close(network.train()(images()), expected, rtol=0, atol=1e-12)


def test_narrowing_leaves_the_wide_weights_as_they_are() -> None:
    flat = widest("small-resnet")
    before = flat.values.clone()
    network = narrow(flat.parameters, Backbone("small-resnet", 3).build(1.0))
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    assert torch.equal(flat.values, before)


class Switchable(nn.Module):
    """A BatchNorm for each width (S-Nets, arXiv 1812.08928, section 3.2), with convolutions that are cut by hand."""

    def __init__(self, widths: list[float]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(16, 16, 3, bias=False)
        self.norms = nn.ModuleDict({str(w).replace(".", "_"): nn.BatchNorm2d(int(16 * w)) for w in widths})
        self.head = nn.BatchNorm1d(16)

    def forward(self, x: Tensor, width: float) -> Tensor:
        k = int(16 * width)
        x = F.conv2d(x, self.first.weight[:k])
        x = self.norms[str(width).replace(".", "_")](x).relu()
        return self.head(F.conv2d(x, self.second.weight[:, :k]).mean((2, 3)))


class Plain(nn.Module):
    """The plain network of one width; its second convolution and its head are never cut."""

    def __init__(self, width: float) -> None:
        super().__init__()
        k = int(16 * width)
        self.first, self.norm = nn.Conv2d(3, k, 3, bias=False), nn.BatchNorm2d(k)
        self.second, self.head = nn.Conv2d(k, 16, 3, bias=False), nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.norm(self.first(x)).relu()).mean((2, 3)))


def switchable() -> tuple[Switchable, FlatParameters]:
    """Build the network above with random weights, and ours with the same: the widest network's and three norms'."""
    widths, generator = [1.0, 0.75, 0.5, 0.25], torch.Generator().manual_seed(5)
    by_hand = Switchable(widths).train()
    for p in by_hand.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    names = {"1_0": "norm", "0_75": "norm@0.75", "0_5": "norm@0.5", "0_25": "norm@0.25"}
    ours = {}
    for name, p in by_hand.named_parameters():
        owner, _, kind = name.rpartition(".")
        key = names.get(owner.removeprefix("norms."), owner)
        norm, at, width = key.partition("@")
        ours[f"{norm}.{kind}{at}{width}"] = p.detach().clone().requires_grad_()
    return by_hand, FlatParameters(ours, CPU)


def test_widths_with_batch_norms_of_their_own_are_switchable_networks() -> None:
    by_hand, flat = switchable()
    slimmable = Slimmable(Plain, (0.75, 0.5, 0.25))
    assert set(slimmable.initial_parameters(1.0)) == set(flat.shapes)
    for width in (1.0, 0.5, 0.25, 0.75):
        slices = slimmable.slices(width)
        leaves = flat.leaves(slices)
        ours, expected = slimmable(leaves, width, images()), by_hand(images(), width)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
        by_hand.zero_grad()
        (expected**3).sum().backward()
        (ours**3).sum().backward()
        gradients = flat.views(flat.scatter_grads(pack_grads(leaves.values()), slices))
        torch.testing.assert_close(gradients["first.weight"], by_hand.first.weight.grad, rtol=1e-9, atol=1e-9)
        norms = {"1_0": "norm.weight", "0_75": "norm.weight@0.75", "0_5": "norm.weight@0.5", "0_25": "norm.weight@0.25"}
        for name, key in norms.items():
            grad = by_hand.norms[name].weight.grad
            expected = torch.zeros_like(gradients[key]) if grad is None else grad
            torch.testing.assert_close(gradients[key], expected, rtol=1e-9, atol=1e-9)


def test_a_network_that_is_shipped_has_the_batch_norms_of_its_width() -> None:
    by_hand, flat = switchable()
    for width in (1.0, 0.75, 0.5, 0.25):
        network = narrow(switch_batch_norms(flat.parameters, width), Plain(width)).train()
        torch.testing.assert_close(network(images()), by_hand(images(), width), rtol=0, atol=1e-10)


def test_batch_norms_of_a_width_start_as_new_ones_and_the_rest_does_not_depend_on_them() -> None:
    torch.manual_seed(0)
    shared = Slimmable(lambda w: Backbone("small-resnet", 3).build(w)).initial_parameters(1.0)
    torch.manual_seed(0)
    own = Slimmable(lambda w: Backbone("small-resnet", 3).build(w), (0.5,)).initial_parameters(1.0)
    assert all(torch.equal(own[name], shared[name]) for name in shared)
    added = {name: p for name, p in own.items() if name not in shared}
    norms = [m for m in Backbone("small-resnet", 3).build(0.5).modules() if isinstance(m, nn.BatchNorm2d)]
    assert [p.numel() for p in added.values()] == [norm.num_features for norm in norms for _ in range(2)]
    assert all((p == ("weight" in name)).all() for name, p in added.items())
