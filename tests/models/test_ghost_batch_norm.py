"""BatchNorm within groups of images, against PyTorch's BatchNorm of each group alone."""

import pytest
import torch
from torch import Tensor, nn

from us3l.models.backbones.layers import NormReLU
from us3l.models.ghost_batch_norm import ghost_batch_norm_eager, to_ghost_batch_norm

GROUPS, IMAGES, CHANNELS = 3, 4, 8


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).requires_grad_()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("relu", [True, False])
def test_each_group_is_normalized_as_if_it_were_alone_forward_and_backward(relu: bool) -> None:
    norm = NormReLU(CHANNELS) if relu else nn.BatchNorm2d(CHANNELS)
    nn.init.uniform_(norm.weight)
    x, shortcut = noise(GROUPS * IMAGES, CHANNELS, 5, 5), noise(GROUPS * IMAGES, CHANNELS, 5, 5).detach()
    shifted = x * torch.arange(1, GROUPS * IMAGES + 1)[:, None, None, None]
    rest = (shortcut,) if relu else ()
    together = ghost_batch_norm_eager(
        shifted, norm.weight, norm.bias, GROUPS, norm.eps, shortcut if relu else None, relu
    )
    parts = [norm(*part) for part in zip(*(each.chunk(GROUPS) for each in (shifted, *rest)), strict=True)]
    apart, sources = torch.cat(parts), [x, norm.weight, norm.bias]
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    direction = noise(*apart.shape).detach()
    gradients = [
        torch.autograd.grad((each * direction).sum(), sources, retain_graph=True) for each in (together, apart)
    ]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


class Activated(nn.BatchNorm2d):
    """A user's BatchNorm, which computes more than its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


@pytest.mark.usefixtures("float64")
def test_a_batch_norm_that_does_more_goes_on_doing_it() -> None:
    norm, x = Activated(CHANNELS), noise(IMAGES, CHANNELS, 5, 5)
    to_ghost_batch_norm(norm, lambda: 1)
    torch.testing.assert_close(
        norm(x), ghost_batch_norm_eager(x, norm.weight, norm.bias, 1, norm.eps, None, False).tanh()
    )
    assert norm.running_mean is None


@pytest.mark.usefixtures("float64")
def test_a_batch_norm_that_keeps_groups_apart_has_no_statistics_of_its_own_and_its_hooks_are_called() -> None:
    norm, groups, seen = nn.BatchNorm1d(CHANNELS), [1], []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    to_ghost_batch_norm(norm, lambda: groups[0])
    x = noise(GROUPS * IMAGES, CHANNELS)
    for count in (1, GROUPS):
        groups[0] = count
        expected = torch.cat(
            [(part - part.mean(0)) / (part.var(0, False) + norm.eps).sqrt() for part in x.chunk(count)]
        )
        torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-12)
        assert torch.equal(seen[-1], norm(x))
    assert norm.running_mean is None and not list(norm.buffers())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, NormReLU])
@pytest.mark.parametrize("groups", [1, GROUPS])
def test_a_users_batch_norm_keeps_its_own_epsilon(kind: type[nn.Module], groups: int) -> None:
    norm = kind(CHANNELS, eps=0.3)
    x = noise(GROUPS * IMAGES, CHANNELS, *([] if kind is nn.BatchNorm1d else [5, 5])).detach()
    expected = torch.cat([norm.train()(part) for part in x.chunk(groups)])
    to_ghost_batch_norm(norm, lambda: groups)
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-12)
    ordinary = nn.BatchNorm2d(CHANNELS)(x.view(len(x), CHANNELS, -1, 1)).view(x.shape)
    assert (norm(x) - ordinary).abs().max() > 0.1
