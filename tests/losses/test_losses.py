"""The losses against their equations: every pair written out, one logit and one logarithm at a time."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from us3l.losses.dino import dino, next_center, teacher_temperature
from us3l.losses.embeddings import (
    contrastive,
    cosine,
    infonce,
    kl,
    mse,
    nt_xent,
    queue,
    queue_soft_labels,
    soft_cross_entropy,
)
from us3l.losses.feature_maps import attention_channel, attention_spatial, feature_cosine, feature_mse
from us3l.losses.registry import ONE_VIEW, Target, loss, student_views, teacher_views
from us3l.losses.relations import rkd_angle, rkd_distance, similarity_matrix, similarity_matrix_mse
from us3l.losses.views import Views
from us3l.params.method import LOSSES, Method

pytestmark = pytest.mark.usefixtures("float64")
METHOD = Method(name="byol", base_loss="infonce+queue+kl", queue=6, student_temperature=0.3, teacher_temperature=0.2)
TEMPERATURES = [0.07, 0.5, 2.0]


def views(seed: int, batch: int = 5, size: int = 7) -> Views:
    """Return two views of embeddings of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, batch, size, generator=generator) * torch.logspace(-2, 2, batch)[:, None]
    return z[0].requires_grad_(), z[1].requires_grad_()


def target(teacher: Views) -> Target:
    """Return a target of a teacher's embeddings, keys of two more shards, a queue of norm 1, and a centre."""
    generator = torch.Generator().manual_seed(9)
    others = [torch.randn(2, len(view), view.shape[1], generator=generator) for view in teacher]
    keys = {v: torch.cat((others[v][0], teacher[v], others[v][1])) for v in range(2)}
    negatives = torch.randn(6, teacher[0].shape[1], generator=generator)
    return Target(
        embeddings=dict(enumerate(teacher)),
        maps=[],
        labels=torch.arange(len(teacher[0])),
        keys=keys,
        offset=len(teacher[0]),
        queue=negatives / negatives.norm(dim=1, keepdim=True),
        center=torch.linspace(-1, 1, teacher[0].shape[1])[None],
        teacher_temperature=0.06,
    )


def plain_cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / ((one**2).sum() * (other**2).sum()).sqrt()


def plain_nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Compute the mean over all 2B embeddings of -log(exp(positive) / sum over all others)."""
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
    now, then = (loss(name, student, target((teacher, second)), METHOD) for teacher in (first, views(2)[0]))
    assert now != then
    gradients = [torch.autograd.grad(value, student) for value in (now, then)]
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert not torch.equal(gradients[0][1], gradients[1][1])


NAMED = {
    "cosine": lambda s, t: cosine(s, t.pair),
    "mse": lambda s, t: mse(s, t.pair),
    "infonce": lambda s, t: infonce(s, t.pair, 0.5),
    "nt-xent": lambda s, t: nt_xent(*s, 0.5),
    "kl": lambda s, t: kl(s, t.pair, 0.3, 0.2),
    "rkd-distance": lambda s, t: rkd_distance(s, t.pair),
    "rkd-angle": lambda s, t: rkd_angle(s, t.pair),
    "similarity-matrix": lambda s, t: similarity_matrix(s, t.pair),
    "similarity-matrix-mse": lambda s, t: similarity_matrix_mse(s, t.pair),
    "dino": lambda s, t: dino(s, t.pair, t.center, 0.3, 0.06),
    "contrastive": lambda s, t: contrastive(s[0], t.keys[1], 5, 0.5) + contrastive(s[1], t.keys[0], 5, 0.5),
    "queue": lambda s, t: queue(s[0], t.pair[1], t.queue, 0.5),
    "queue-soft-labels": lambda s, t: queue_soft_labels(s[0], t.pair[0], t.queue, 0.3, 0.2),
    "cross-entropy": lambda s, t: torch.nn.functional.cross_entropy(s[0], t.labels),
    "soft-labels": lambda s, t: soft_cross_entropy(s[0], t.pair[0].softmax(1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_names_of_params_yaml_stand_for_the_losses(name: str) -> None:
    student, teacher = views(0), target(views(1))
    assert loss(name, student, teacher, METHOD) == NAMED[name](student, teacher)


def test_losses_with_a_plus_between_them_are_added_up() -> None:
    student, teacher = views(0), target(views(1))
    summed = NAMED["infonce"](student, teacher) + NAMED["cosine"](student, teacher) + NAMED["queue"](student, teacher)
    torch.testing.assert_close(loss("infonce+cosine+queue", student, teacher, METHOD), summed, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_no_view_but_those_that_it_says(name: str) -> None:
    """The losses read only the views that student_views and teacher_views return."""
    student, teacher = views(0)[: len(student_views(name))], target(views(1))
    read = ONE_VIEW.get(name, (0, 1))
    seen = {"embeddings": teacher.embeddings, "keys": teacher.keys}
    seen = {key: {view: each for view, each in given.items() if view in read} for key, given in seen.items()}
    assert loss(name, student, teacher._replace(**seen), METHOD).isfinite()


def test_a_teacher_is_run_on_the_views_that_any_of_the_losses_reads() -> None:
    of = lambda **losses: teacher_views(Method(name="byol", queue=6, **losses))  # noqa: E731
    assert of(base_loss="queue", distillation_loss="queue") == [1]
    assert of(base_loss="queue-soft-labels", distillation_loss="queue-soft-labels") == [0]
    assert of(base_loss="queue", distillation_loss="queue+cosine") == [0, 1]
    assert of(base_loss="queue", distillation_loss="queue", feature_distillation={"layers": ["layer2"]}) == [0, 1]


def test_indistinguishable_embeddings_give_the_loss_of_a_guess() -> None:
    same = torch.ones(6, 4)
    torch.testing.assert_close(nt_xent(same, same, 0.1), torch.tensor(11.0).log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_keep_the_precision_of_their_inputs(dtype: torch.dtype) -> None:
    student, teacher = (tuple(z.to(dtype) for z in views(seed)) for seed in (0, 1))
    held = target(teacher)._replace(queue=target(teacher).queue.to(dtype))
    assert {loss(name, student, held, METHOD).dtype for name in ("cosine", "infonce", "nt-xent", "queue")} == {dtype}


def plain_huber(one: Tensor, other: Tensor) -> Tensor:
    gap = (one - other).abs()
    return gap**2 / 2 if gap < 1 else gap - 0.5


def plain_kl(one: Tensor, other: Tensor) -> Tensor:
    """Add the teacher's entropy to PyTorch's KL divergence."""
    targets = (other / 0.4).softmax(1)
    divergence = torch.nn.KLDivLoss(reduction="batchmean")((one / 0.7).log_softmax(1), targets)
    return divergence + torch.special.entr(targets).sum(1).mean()


def plain_mse(one: Tensor, other: Tensor) -> Tensor:
    return sum((a - b) ** 2 for a, b in zip(one.flatten(), other.flatten(), strict=True)) / one.numel()


def plain_distance(one: Tensor, other: Tensor) -> Tensor:
    def distances(z: Tensor) -> list[Tensor]:
        found = [((z[i] - z[j]) ** 2).sum().sqrt() for i, j in product(range(len(z)), repeat=2) if i != j]
        return [each / (sum(found) / len(found)) for each in found]

    pairs = zip(distances(one), distances(other), strict=True)
    return sum(plain_huber(*pair) for pair in pairs) / len(one) ** 2


def plain_angle(one: Tensor, other: Tensor) -> Tensor:
    def angle(z: Tensor, i: int, j: int, k: int) -> Tensor:
        return torch.zeros(()) if i in (j, k) else plain_cosine(z[j] - z[i], z[k] - z[i])

    triplets = list(product(range(len(one)), repeat=3))
    return sum(plain_huber(angle(one, *t), angle(other, *t)) for t in triplets) / len(triplets)


CROSSED = {
    "kl": (lambda student, teacher: kl(student, teacher, 0.7, 0.4), plain_kl),
    "mse": (mse, plain_mse),
    "rkd-distance": (rkd_distance, plain_distance),
    "rkd-angle": (rkd_angle, plain_angle),
}


@pytest.mark.parametrize("name", CROSSED)
def test_distillation_is_its_equation_on_crossed_views(name: str) -> None:
    ours, plain = CROSSED[name]
    student, teacher = views(0), views(1)
    expected = (plain(student[0], teacher[1].detach()) + plain(student[1], teacher[0].detach())) / 2
    assert_same_with_gradients(ours(student, teacher), expected, student)


def test_similarity_matrix_is_the_sum_over_all_pairs_of_both_views() -> None:
    student, teacher = views(0), views(1)
    ours, theirs = ([*each[0], *each[1]] for each in (student, teacher))
    gaps = [
        plain_cosine(ours[i], ours[j]) - plain_cosine(theirs[i], theirs[j]).detach()
        for i, j in product(range(10), repeat=2)
    ]
    assert_same_with_gradients(similarity_matrix(student, teacher), sum(gap**2 for gap in gaps), student)


def test_similarity_matrix_mse_is_huber_between_views_less_the_cosine() -> None:
    student, teacher = views(0), views(1)
    terms = [
        plain_huber(plain_cosine(student[0][i], student[1][j]), plain_cosine(teacher[0][i], teacher[1][j]).detach())
        for i, j in product(range(5), repeat=2)
    ]
    frozen = teacher[0].detach(), teacher[1].detach()
    expected = 2 * sum(terms) + cosine(student, frozen)
    assert_same_with_gradients(similarity_matrix_mse(student, teacher), expected, student)


def test_soft_cross_entropy_is_that_of_pytorch() -> None:
    logits, other = views(0)
    targets = other.detach().softmax(1)
    expected = torch.nn.functional.cross_entropy(logits, targets)
    assert_same_with_gradients(soft_cross_entropy(logits, targets), expected, (logits,))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_contrastive_is_2t_times_the_cross_entropy_over_all_keys(temperature: float) -> None:
    (student, _), teacher = views(0), target(views(1))
    keys = teacher.keys[1].detach()
    total = torch.zeros(())
    for i in range(5):
        similarity = [(plain_cosine(student[i], key) / temperature).exp() for key in keys]
        total = total - (similarity[5 + i] / sum(similarity)).log()
    expected = 2 * temperature * total / 5
    assert_same_with_gradients(contrastive(student, teacher.keys[1], 5, temperature), expected, (student,))


def with_queue(one: Tensor, own: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Return the similarities of each image to its own embedding and to the queue's."""
    rows = [[plain_cosine(a, b), *(plain_cosine(a, n) for n in negatives)] for a, b in zip(one, own, strict=True)]
    return torch.stack([torch.stack(row) for row in rows]) / temperature


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_queue_is_its_equation_and_gives_the_teacher_no_gradient(temperature: float) -> None:
    (student, _), (key, _), negatives = views(0), views(1), target(views(1)).queue
    logits = with_queue(student, key.detach(), negatives, temperature)
    expected = -(logits[:, 0].exp() / logits.exp().sum(1)).log().mean()
    assert_same_with_gradients(queue(student, key, negatives, temperature), expected, (student,))
    ours = queue(student, key, negatives, temperature)
    assert torch.autograd.grad(ours, key, allow_unused=True) == (None,)


@pytest.mark.parametrize(("of_student", "of_teacher"), [(0.2, 0.07), (0.1, 0.5)])
def test_queue_soft_labels_are_the_cross_entropy_of_both_sides_similarities(
    of_student: float, of_teacher: float
) -> None:
    (student, _), (teacher, _), negatives = views(0), views(1), target(views(1)).queue
    labels = with_queue(teacher, teacher, negatives, of_teacher).softmax(1).detach()
    expected = torch.nn.functional.cross_entropy(with_queue(student, teacher.detach(), negatives, of_student), labels)
    ours = [queue_soft_labels(student, teacher, negatives, of_student, of_teacher) for _ in range(2)]
    assert_same_with_gradients(ours[0], expected, (student,))
    assert torch.autograd.grad(ours[1], teacher, allow_unused=True) == (None,)


def maps(seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, 4, 2), (2, 5, 1, 3)]
    one, other = ([torch.randn(shape, generator=generator).requires_grad_() for shape in shapes] for _ in range(2))
    return one, other


def plain_softmax(values: list[Tensor]) -> Tensor:
    exponentials = torch.stack([value.exp() for value in values])
    return exponentials / exponentials.sum()


def plain_spatial(one: Tensor, other: Tensor) -> Tensor:
    def attention(image: Tensor) -> Tensor:
        return plain_softmax([image[:, y, x].sum() for y in range(image.shape[1]) for x in range(image.shape[2])])

    return sum(plain_mse(attention(a), attention(b)) for a, b in zip(one, other, strict=True)) / len(one)


def plain_channel(one: Tensor, other: Tensor) -> Tensor:
    pairs = zip(one, other, strict=True)
    return sum(plain_mse(*(plain_softmax([c.sum() for c in image]) for image in pair)) for pair in pairs) / len(one)


def plain_pooled_cosine(one: Tensor, other: Tensor) -> Tensor:
    pooled = [[torch.stack([c.sum() for c in image]) for image in pair] for pair in zip(one, other, strict=True)]
    return -sum(plain_cosine(*pair) for pair in pooled) / len(one)


FEATURES = {
    feature_mse: plain_mse,
    attention_spatial: plain_spatial,
    attention_channel: plain_channel,
    feature_cosine: plain_pooled_cosine,
}


@pytest.mark.parametrize("ours", FEATURES, ids=lambda each: each.__name__)
def test_feature_losses_are_the_mean_over_maps_and_crossed_views(ours: Callable[..., Tensor]) -> None:
    student, teacher = maps(0), maps(1)
    expected = (
        sum(FEATURES[ours](student[v][m], teacher[1 - v][m].detach()) for v, m in product(range(2), repeat=2)) / 4
    )
    assert_same_with_gradients(ours(student, teacher), expected, (*student[0], *student[1]))


def test_dino_is_the_cross_entropy_with_a_centred_sharpened_teacher() -> None:
    student, teacher, center = views(0), views(1), torch.linspace(-1, 1, 7)[None]
    expected = [
        torch.nn.functional.cross_entropy(student[v] / 0.1, ((teacher[1 - v] - center) / 0.5).softmax(1).detach())
        for v in range(2)
    ]
    assert_same_with_gradients(dino(student, teacher, center, 0.1, 0.5), sum(expected) / 2, student)


def test_the_center_follows_the_mean_of_both_views_and_keeps_its_shape() -> None:
    teacher = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[5.0, 4.0], [7.0, 4.0]])
    torch.testing.assert_close(next_center(torch.tensor([[10.0, 0.0]]), teacher), torch.tensor([[9.4, 0.2]]))


def test_the_teachers_temperature_warms_up_to_its_final_value() -> None:
    made = [teacher_temperature(epoch, 0.07, warmup_epochs=4) for epoch in range(6)]
    assert made == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    assert teacher_temperature(0, 0.07, warmup_epochs=1) == 0.07


LN2 = math.log(2)
R = 4 + 8**0.5
UNIT = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
LINE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
CORNER = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("ours", "student", "teacher", "by_hand"),
    [
        (lambda s, t: kl(s, t, 1.0, 1.0), 0 * UNIT, UNIT, LN2),
        (mse, 0 * UNIT, UNIT, 0.5),
        (lambda s, t: soft_cross_entropy(s[0], t[0]), 0 * UNIT, UNIT, LN2),
        (similarity_matrix, UNIT, torch.ones(2, 2, dtype=torch.float64), 8.0),
        (similarity_matrix_mse, UNIT, torch.ones(2, 2, dtype=torch.float64), 12.5 - 0.5**0.5),
        # distances 1, 2, 1 in units of 4/3 against 1, 1, sqrt(2) in units of (2 + sqrt(2)) / 3, each twice of 9
        (rkd_distance, LINE, CORNER, ((0.75 - 6 / R) ** 2 + (1.5 - 6 / R) ** 2 + (0.75 - 72**0.5 / R) ** 2) / 9),
        # cosines 1, -1, 1 against 0, sqrt(1/2), sqrt(1/2), each twice of 27
        (rkd_angle, LINE, CORNER, 2 * (0.5 + (0.5 + 0.5**0.5) + (1 - 0.5**0.5) ** 2 / 2) / 27),
        (lambda s, t: dino(s, t, UNIT[:1] * 2, 1.0, 1.0), 0 * UNIT, UNIT, LN2),
    ],
)
def test_a_case_by_hand(ours: Callable[..., Tensor], student: Tensor, teacher: Tensor, by_hand: float) -> None:
    teacher = teacher.clone().requires_grad_()
    student = student.clone().requires_grad_()
    value = ours((student, student), (teacher, teacher))
    assert value.item() == pytest.approx(by_hand, abs=1e-12)
    value.backward()
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("ours", "by_hand"),
    [
        (feature_mse, math.log(1.5) ** 2 / 2),
        (attention_spatial, 0.01),
        (attention_channel, 0.0),
        (feature_cosine, -1.0),
    ],
)
def test_a_feature_map_by_hand(ours: Callable[..., Tensor], by_hand: float) -> None:
    """One channel, two positions: attention (1/2, 1/2) against (0.6, 0.4) = softmax(ln 1.5 + 1, 1)."""
    student, teacher = torch.ones(1, 1, 1, 2), torch.tensor([[[[1 + math.log(1.5), 1.0]]]]).requires_grad_()
    student.requires_grad_()
    value = ours(([student], [student]), ([teacher], [teacher]))
    assert value.item() == pytest.approx(by_hand, abs=1e-12)
    value.backward()
    assert teacher.grad is None
