"""The losses against their texts: every pair written out, one logit and one logarithm at a time."""

from itertools import product

import pytest
import torch
from torch import Tensor

from us3l.losses import Views, cosine, infonce, loss, nt_xent

pytestmark = pytest.mark.usefixtures("float64")
TEMPERATURES = [0.07, 0.5, 2.0]


def views(seed: int, batch: int = 5, size: int = 7) -> Views:
    """Two views of embeddings of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, batch, size, generator=generator) * torch.logspace(-2, 2, batch)[:, None]
    return z[0].requires_grad_(), z[1].requires_grad_()


def plain_cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / ((one**2).sum() * (other**2).sum()).sqrt()


def plain_nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The mean over all 2B embeddings of -log(exp(positive) / sum over all others)."""
    z, n = [*one, *other], len(one)
    total = torch.zeros(())
    for i in range(2 * n):
        similarity = [(plain_cosine(z[i], z[j]) / temperature).exp() for j in range(2 * n)]
        others = sum(similarity[j] for j in range(2 * n) if j != i)
        total = total - (similarity[(i + n) % (2 * n)] / others).log()
    return total / (2 * n)


def assert_same_with_gradients(ours: Tensor, plain: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    gradients = zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True)
    for our_gradient, plain_gradient in gradients:
        torch.testing.assert_close(our_gradient, plain_gradient, rtol=1e-9, atol=1e-12)


def test_cosine_is_the_mean_over_images_and_crossed_views() -> None:
    student, teacher = views(0), views(1)
    pairs = [(student[v][i], teacher[1 - v][i]) for v, i in product(range(2), range(5))]
    plain = -sum(plain_cosine(*pair) for pair in pairs) / len(pairs)
    assert_same_with_gradients(cosine(student, teacher), plain, student + teacher)


def test_cosine_is_minus_one_where_student_and_crossed_teacher_agree() -> None:
    one, other = views(0)
    torch.testing.assert_close(cosine((one, other), (other * 3, one / 2)).item(), -1.0)
    torch.testing.assert_close(cosine((one, other), (-other, -one)).item(), 1.0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_nt_xent_is_its_equation(temperature: float) -> None:
    one, other = views(0)
    assert_same_with_gradients(nt_xent(one, other, temperature), plain_nt_xent(one, other, temperature), (one, other))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_infonce_is_nt_xent_between_student_and_teacher_both_ways(temperature: float) -> None:
    student, teacher = views(0), views(1)
    both = [plain_nt_xent(student[v], teacher[1 - v], temperature) for v in range(2)]
    assert_same_with_gradients(infonce(student, teacher, temperature), sum(both) / 2, student + teacher)


@pytest.mark.parametrize("name", ["cosine", "infonce"])
def test_a_student_never_meets_the_teacher_of_its_own_view(name: str) -> None:
    student, (first, second) = views(0), views(1)
    now, then = (loss(name, student, (teacher, second), 0.5) for teacher in (first, views(2)[0]))
    assert now != then
    gradients = [torch.autograd.grad(value, student) for value in (now, then)]
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert not torch.equal(gradients[0][1], gradients[1][1])


def test_the_names_of_params_yaml_stand_for_the_losses() -> None:
    student, teacher = views(0), views(1)
    assert loss("cosine", student, teacher, 0.5) == cosine(student, teacher)
    assert loss("infonce", student, teacher, 0.5) == infonce(student, teacher, 0.5)
    assert loss("nt-xent", student, teacher, 0.5) == nt_xent(*student, 0.5)


def test_indistinguishable_embeddings_give_the_loss_of_a_guess() -> None:
    same = torch.ones(6, 4)
    torch.testing.assert_close(nt_xent(same, same, 0.1), torch.tensor(11.0).log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_keep_the_precision_of_their_inputs(dtype: torch.dtype) -> None:
    student, teacher = (tuple(z.to(dtype) for z in views(seed)) for seed in (0, 1))
    assert {loss(name, student, teacher, 0.5).dtype for name in ("cosine", "infonce", "nt-xent")} == {dtype}
