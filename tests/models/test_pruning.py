"""L1 pruning: the pruned filters against numpy's ranking, their silence after training, and the network's cost."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.complexity import cost
from us3l.models.pruning import prune
from us3l.utils.errors import UserError

BUILT_IN = ("small-resnet", "cifar-mobilenetv1", "cifar-mobilenetv2", "resnet18")
CRITERIA = ("filters", "batch-norm")


@cache
def weights_of(name: str) -> dict[str, Tensor]:
    """Return random weights, none of them zero."""
    torch.manual_seed(0)
    network = Backbone(name, 3).build(1.0)
    return {key: torch.randn(p.shape, dtype=torch.float32) for key, p in network.named_parameters()}


def made(name: str, kept: float, criterion: str, weights: dict[str, Tensor] | None = None) -> nn.Module:
    return prune(weights or weights_of(name), Backbone(name, 3).build, kept, criterion, torch.zeros(1, 3, 64, 64))


def layers(name: str) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and of its BatchNorm."""
    modules = Backbone(name, 3).build(1.0).named_modules()
    names = [key for key, m in modules if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    return zip(names[::2], names[1::2], strict=True)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("kept", [0.75, 0.3])
def test_in_each_convolution_the_filters_of_the_smallest_l1_norm_go(name: str, kept: float) -> None:
    before, after = weights_of(name), dict(made(name, kept, "filters").named_parameters())
    for convolution, norm in layers(name):
        norms = np.abs(before[f"{convolution}.weight"].flatten(1).double().numpy()).sum(1)
        gone = np.zeros(len(norms), bool)
        gone[np.argsort(norms)[: int(len(norms) * (1 - kept))]] = True
        for parameter in (f"{norm}.weight", f"{norm}.bias"):
            expected = np.where(gone, 0, before[parameter])
            np.testing.assert_array_equal(after[parameter].detach(), expected, parameter)
        filters = after[f"{convolution}.weight"].detach()
        assert not filters[torch.from_numpy(gone)].any()
        left = filters[torch.from_numpy(~gone)]
        assert torch.equal(left[left != 0], before[f"{convolution}.weight"][torch.from_numpy(~gone)][left != 0])


@pytest.mark.parametrize("name", BUILT_IN)
def test_or_the_channels_whose_batch_norms_weights_are_the_smallest(name: str) -> None:
    before, after = weights_of(name), dict(made(name, 0.6, "batch-norm").named_parameters())
    for convolution, norm in layers(name):
        scales = before[f"{norm}.weight"].abs()
        smallest = scales <= scales.kthvalue(int(len(scales) * 0.4)).values
        for parameter in (f"{norm}.weight", f"{norm}.bias"):
            assert torch.equal(after[parameter], before[parameter].masked_fill(smallest, 0))
        assert not after[f"{convolution}.weight"][smallest].any()


def without(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the output of a BatchNorm, with shortcut and ReLU, where the normalized x is zero."""
    return sum(inputs[1:], torch.zeros_like(inputs[0])).relu()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_gone_stays_silent_after_calibration(name: str, criterion: str) -> None:
    network = made(name, 0.4, criterion)
    for _ in range(3):
        network.train()(torch.randn(4, 3, 64, 64) + 2)
    network.eval()
    silent = []

    def keep(norm: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        gone = norm.weight == 0
        silent.append((gone.sum(), (output - without(inputs))[:, gone].abs().sum()))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(keep)
    assert network(torch.randn(2, 3, 64, 64)).isfinite().all()
    assert all(int(count) > 0 and total == 0 for count, total in silent)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", BUILT_IN)
def test_all_filters_kept_are_the_network_itself(name: str, criterion: str) -> None:
    for key, p in made(name, 1.0, criterion).named_parameters():
        assert torch.equal(p, weights_of(name)[key]), key


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [*BUILT_IN, "resnet50"])
def test_the_network_computes_what_one_with_masks_on_its_batch_norms_computes(name: str) -> None:
    """Weights for silent inputs are zeroed too, which does not change the output."""
    ours, masked = made(name, 0.4, "filters"), Backbone(name, 3).build(1.0)
    masked.load_state_dict(weights_of(name), strict=False)  # its BatchNorms' statistics are not among them
    for own, other in zip(ours.modules(), masked.modules(), strict=True):
        if isinstance(own, nn.BatchNorm2d):
            left = (own.weight != 0)[:, None, None]
            other.register_forward_hook(lambda m, inputs, out, left=left: torch.where(left, out, without(inputs)))
    x = torch.randn(4, 3, 64, 64)
    for network in (ours, masked):
        network.train()(x)
    torch.testing.assert_close(ours.eval()(x), masked.eval()(x), rtol=1e-10, atol=1e-10)


def test_a_network_whose_last_filters_go_costs_what_the_narrow_one_does() -> None:
    """In every layer, also where layers meet, the pruned half of the filters is the half that width 0.5 lacks."""
    weights = {key: each.clone() for key, each in weights_of("cifar-resnet18").items()}
    for each in weights.values():
        if each.dim() == 4:
            each[len(each) // 2 :] *= 1e-3
    image = torch.zeros(1, 3, 32, 32)
    ours = cost(made("cifar-resnet18", 0.5, "filters", weights).eval(), image, 100)
    narrow = cost(Backbone("cifar-resnet18", 3).build(0.5).eval(), image, 100)
    unseen = 256 * 100  # the classifier takes all features, silent or not
    assert (ours["parameters"], ours["macs"]) == (narrow["parameters"], narrow["macs"] + unseen)


def test_a_network_that_takes_images_of_one_size_is_run_on_those() -> None:
    def build(width: float) -> nn.Module:
        block = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        return nn.Sequential(*block, nn.Flatten(), nn.Linear(4 * 6 * 6, 5))

    weights = dict(build(1.0).named_parameters())
    ours = prune(weights, build, 0.5, "filters", torch.zeros(1, 1, 8, 8))
    silent = ours[1].weight == 0
    assert silent.sum() == 2 and not ours[3].weight[:, silent].any()
    assert ours(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_network_without_batch_norms_or_weights_in_them_is_refused(criterion: str) -> None:
    with pytest.raises(UserError, match="each with a BatchNorm of its own that has weights"):
        made("vit-tiny", 0.5, criterion)
    bare = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False))
    with pytest.raises(UserError, match="each with a BatchNorm of its own that has weights"):
        prune(dict(bare.named_parameters()), lambda width: bare, 0.5, criterion, torch.zeros(1, 3, 8, 8))
