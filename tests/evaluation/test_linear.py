"""Calibration and linear evaluation, in memory, against loops written by hand."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from pictures import CPU, MEAN, STD, evaluated, network, pictures, pixels
from project import params
from scipy.stats import binomtest
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor, nn

from us3l.data.images import open_images
from us3l.data.store import Split, Store
from us3l.evaluation.calibration import calibrate_batch_norms, full_batches
from us3l.evaluation.classifier import Classifiers, linear_layer
from us3l.evaluation.features import features
from us3l.evaluation.linear import evaluate_networks, train
from us3l.evaluation.metrics import score
from us3l.models.backbones.backbone import Backbone
from us3l.params.params import Params
from us3l.params.protocols.linear import Linear
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan
from us3l.training.optimizers import trusted
from us3l.utils.errors import UserError
from us3l.utils.philox import Purpose, RandomKey, permutation

# --- calibration ----------------------------------------------------------------------------------------------------


def plan(**calibration: Any) -> RunPlan:
    content = params()
    content["protocols"]["quick"]["calibration"] = {"batch_size": 8} | calibration
    return Plan(Params.model_validate(content)).run("tiny", "us3l")


def settle(networks: list[nn.Module], **calibration: Any) -> None:
    planned, images = plan(**calibration), open_images(store().train, CPU)
    calibrate_batch_norms(networks, planned.protocol.calibration, images, planned.data.dataset.views, 0)


def store(count: int = 20) -> Store:
    """Noise; the first pixel of image i is i."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    split = Split(images, np.zeros(count, np.int64))
    return Store(split, split, ("noise",), "0")


class Listener(nn.Module):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return self.norm(x)


def seen_in_calibration(**settings: Any) -> tuple[Listener, list[list[int]]]:
    """A calibrated listener, and the numbers of the images in each batch that it saw."""
    listener = Listener()
    settle([listener], **settings)
    first_pixels = [(x[:, 0, 0, 0] * STD + MEAN) * 255 for x in listener.seen]
    return listener, [pixels.round().int().tolist() for pixels in first_pixels]


def test_each_of_three_passes_shows_whole_batches_of_different_images_in_an_order_of_its_own() -> None:
    _, numbers = seen_in_calibration()
    assert [len(batch) for batch in numbers] == [8] * 6
    passes = [numbers[index] + numbers[index + 1] for index in (0, 2, 4)]
    assert all(len(set(each)) == 16 for each in passes)
    assert len({tuple(each) for each in passes}) == 3


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_running_statistics_are_exponential_averages_over_the_batches(momentum: float) -> None:
    listener, _ = seen_in_calibration(momentum=momentum)
    mean, variance = 0.0, 1.0
    for x in listener.seen:
        values = x.double().flatten()
        mean += momentum * (values.mean() - mean)
        variance += momentum * (((values - values.mean()) ** 2).sum() / (len(values) - 1) - variance)
    assert listener.norm.running_mean.item() == pytest.approx(mean.item(), rel=1e-5)
    assert listener.norm.running_var.item() == pytest.approx(variance.item(), rel=1e-5)


@pytest.mark.parametrize("width", [1.0, 0.37])
def test_a_width_gets_the_statistics_of_an_ordinary_network_in_training_mode(width: float) -> None:
    ours, listener, ordinary = network(width), Listener(), network(width).train()
    settle([ours, listener])
    for x in listener.seen:
        ordinary(x)
    for name, expected in ordinary.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], expected, msg=name)


def test_widths_that_are_calibrated_together_do_not_disturb_one_another() -> None:
    together, alone = [network(width) for width in (1.0, 0.5, 0.25)], network(0.5)
    settle(together)
    settle([alone])
    for name, expected in alone.state_dict().items():
        assert torch.equal(together[1].state_dict()[name], expected), name


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    assert [len(batch) for batch in full_batches(torch.arange(5), 8)] == [5]
    assert [len(batch) for batch in full_batches(torch.arange(8), 8)] == [8]
    assert [len(batch) for batch in full_batches(torch.arange(23), 8)] == [8, 8]


# --- features -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "sizes"), [(32, [32, 32, 6]), (8, [70]), (64, [16, 16, 16, 16, 6])])
def test_a_cpu_takes_few_large_or_many_small_images_at_once(side: int, sizes: list[int]) -> None:
    frozen, shown = network(0.25).eval(), []
    x = torch.randn(70, 1, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = frozen(x)
    frozen.register_forward_pre_hook(lambda module, inputs: shown.append(len(inputs[0])))
    (ours,) = features([frozen], [x])
    assert shown == sizes
    torch.testing.assert_close(ours, expected)


# --- the linear classifier ------------------------------------------------------------------------------------------


def protocol(epochs: int = 2, lr: float = 0.5, trust: float | None = None) -> Linear:
    optimizer = {"lr": lr, "momentum": 0.9, "weight_decay": 0.01, "schedule": "multistep", "milestones": [1]}
    optimizer["trust_coefficient"] = trust
    return Linear.model_validate({"epochs": epochs, "batch_size": 16, "optimizer": optimizer})


def pixels_network() -> nn.Module:
    return Backbone("pixels", 1).build(1.0)


def weights(of: Classifiers) -> list[Tensor]:
    """Of each classifier, those that torch's layer has, one after the other, then the biases."""
    parts = zip(of.weights.split(of.sizes), of.biases, strict=True)
    return [torch.cat([weight.T.flatten(), bias]) for weight, bias in parts]


def test_the_classifier_is_trained_by_sgd_on_the_cross_entropy() -> None:
    (images, labels), seed = pictures(), 5
    layer = linear_layer(64, 3, seed, CPU)
    features = torch.cat([pixels(images).flatten(1), torch.ones(len(images), 1)], 1).double()
    weight = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().double()
    velocity = torch.zeros_like(weight)
    (ours,) = weights(train([pixels_network()], evaluated(images, labels, seed), protocol()))
    for epoch, lr in enumerate((0.5, 0.05)):
        order = permutation(RandomKey(seed, Purpose.LINEAR_ORDER, epoch), 60, CPU).tolist()
        for start in range(0, 60, 16):
            batch = order[start : start + 16]
            error = (features[batch] @ weight.T).softmax(1) - torch.eye(3)[labels[batch]]
            velocity = 0.9 * velocity + error.T @ features[batch] / len(batch) + 0.01 * weight
            weight = weight - lr * velocity
    torch.testing.assert_close(
        ours.double(), torch.cat([weight[:, :-1].flatten(), weight[:, -1]]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("trust", [None, 0.02])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_classifiers_together_learn_what_each_learns_alone_by_torchs_sgd(
    dtype: torch.dtype, tolerance: float, trust: float | None, request: pytest.FixtureRequest
) -> None:
    """LARS is SGD without decay at a rate of each parameter's own; the decay is in its gradient."""
    if dtype == torch.float64:
        request.getfixturevalue("float64")
    sizes, labels, decay, lr = [64, 24, 40], torch.arange(12) % 3, 0.01, 0.5
    generator = torch.Generator().manual_seed(0)
    batches = [[torch.randn(12, size, generator=generator) for size in sizes] for _ in range(4)]
    ours = Classifiers(sizes, 3, protocol(trust=trust).optimizer, 5, CPU)
    for batch in batches:
        ours.step(batch, labels, lr)
    asked = [torch.randn(7, size, generator=generator) for size in sizes]
    logits = ours(asked)
    for index, size in enumerate(sizes):
        layer = linear_layer(size, 3, 5, CPU)
        alone = torch.optim.SGD(layer.parameters(), lr, momentum=0.9, weight_decay=0.0 if trust else decay)
        for batch in batches:
            alone.zero_grad()
            nn.functional.cross_entropy(layer(batch[index]), labels).backward()
            for p in layer.parameters() if trust else ():
                weight, gradient = p.detach(), p.grad
                rate = trust * weight.norm() / (gradient.norm() + decay * weight.norm() + 1e-8)
                p.grad = rate * (gradient + decay * weight)
            alone.step()
        expected = torch.cat([p.detach().flatten() for p in layer.parameters()])
        torch.testing.assert_close(weights(ours)[index], expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(logits[index], layer(asked[index]).detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("float64")
def test_larc_is_sgd_at_a_learning_rate_that_is_each_parameters_own() -> None:
    """apex's LARC without clipping: lr * trust * |w| / (|g| + decay * |w| + 1e-8), decay inside, then momentum."""
    parameter, lr, trust, decay = torch.tensor([3.0, -4.0]), 0.8, 0.001, 1e-4
    for gradient in (torch.tensor([0.6, 0.8]), torch.tensor([1e-9, 0.0])):
        theirs = parameter.clone().requires_grad_()
        theirs.grad = gradient.clone()
        own = lr * trust * 5 / (gradient.norm().item() + decay * 5 + 1e-8)
        torch.optim.SGD([theirs], own, weight_decay=decay).step()
        ours = parameter - lr * trusted(parameter, gradient, decay, trust)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-14)


def test_lars_leaves_the_gradient_of_weights_that_are_zero() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert torch.equal(trusted(torch.zeros(2), gradient, 0.01, 0.001), gradient)
    assert torch.equal(trusted(gradient, torch.zeros(2), 0.01, 0.001), torch.zeros(2))


def test_classes_that_a_plane_separates_are_told_apart_without_a_mistake() -> None:
    images, labels = pictures()
    (result,) = evaluate_networks([pixels_network()], evaluated(images, labels), protocol(epochs=10))
    assert score(result.logits, labels[60:])["top1"] == 100


def test_features_that_are_kept_give_what_features_of_every_epoch_give() -> None:
    images, labels = pictures()
    frozen = network(0.5).eval()
    kept = weights(train([frozen], evaluated(images, labels), protocol()))
    anew = weights(train([frozen], evaluated(images, labels, color_jitter={}), protocol()))  # a jitter by nothing
    torch.testing.assert_close(kept, anew, rtol=1e-4, atol=1e-5)


def test_augmented_images_are_seen_anew_in_every_epoch() -> None:
    images = evaluated(*pictures(), affine={"degrees": 90.0})
    seen, listener = [], pixels_network()
    listener.register_forward_hook(lambda module, inputs, output: seen.append(output))
    train([listener], images, protocol())
    first, second = torch.cat(seen[2:]).split(60)  # those before tell how many features there are
    of_image_0 = [
        each[permutation(RandomKey(0, Purpose.LINEAR_ORDER, epoch), 60, CPU) == 0]
        for epoch, each in enumerate((first, second))
    ]
    assert not torch.equal(*of_image_0)


@pytest.mark.parametrize("linear", [{}, {"flip": 0.5}])
def test_training_leaves_the_network_alone_and_classifiers_do_not_disturb_one_another(linear: dict[str, Any]) -> None:
    images = evaluated(*pictures(), **linear)
    networks = [network(width).eval() for width in (1.0, 0.25)]
    before = deepcopy(networks[1].state_dict())
    together, alone = train(networks, images, protocol()), train([network(0.25).eval()], images, protocol())
    assert torch.equal(weights(together)[1], weights(alone)[0])
    for name, value in networks[1].state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in networks[1].parameters())


@pytest.mark.parametrize(
    ("linear", "test", "made"), [({}, 6, (64, "8x8", 36, "6x6")), ({"size": 4}, 8, (16, "4x4", 64, "8x8"))]
)
def test_views_of_which_a_network_makes_features_of_different_lengths_are_refused(
    linear: dict[str, Any], test: int, made: tuple[Any, ...]
) -> None:
    images = evaluated(*pictures(), resized_crop=linear or None)
    cropped = images.views.test.model_copy(update={"center_crop": test})
    images.views = images.views.model_copy(update={"test": cropped})
    with pytest.raises(UserError) as caught:
        evaluate_networks([pixels_network()], images, protocol())
    message = "the network makes {} features of views.linear's {} pixels and {} features of views.test's {} pixels"
    assert str(caught.value) == f"{message.format(*made)}; both views must be of one size"
    assert evaluate_networks([network(0.25).eval()], images, protocol())[0].logits.shape == (30, 3), (
        "one that averages over positions"
    )


def test_a_network_that_does_not_take_the_view_of_the_training_is_named_with_the_view() -> None:
    images = evaluated(*pictures(), resized_crop={"size": 4})
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    with pytest.raises(UserError, match=r"^views.linear: the network does not take an image of 1 x 4 x 4"):
        evaluate_networks([fixed], images, protocol())


# --- the score ------------------------------------------------------------------------------------------------------


def guesses(classes: int, count: int = 500) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (count,), generator=generator)
    return torch.randn(count, classes, generator=generator) + nn.functional.one_hot(labels, classes), labels


@pytest.mark.parametrize("classes", [6, 10, 100])
def test_accuracies_are_those_of_scikit_learn(classes: int) -> None:
    logits, labels = guesses(classes)
    result = score(logits, labels)
    for key, k in (("top1", 1), ("top5", 5)):
        expected = top_k_accuracy_score(labels, logits, k=k, labels=range(classes))
        assert result[key] == pytest.approx(100 * expected)
    assert result["n"] == 500


@pytest.mark.parametrize(("correct", "n"), [(0, 7), (7, 7), (431, 1000)])
def test_the_interval_is_wilsons(correct: int, n: int) -> None:
    logits = nn.functional.one_hot((torch.arange(n) >= correct).long(), 2).float()
    result = score(logits, torch.zeros(n, dtype=torch.long))
    bounds = binomtest(correct, n).proportion_ci(0.95, "wilson")
    assert result["top1"] == pytest.approx(100 * correct / n)
    assert result["interval"] == pytest.approx([100 * bound for bound in bounds], abs=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
def test_top5_is_left_out_where_it_would_always_be_right(classes: int) -> None:
    assert score(*guesses(classes))["top5"] is None


def test_of_equal_logits_the_first_is_the_answer() -> None:
    result = score(torch.zeros(100, 50), torch.arange(100) % 50)
    assert (result["top1"], result["top5"]) == (2, 10)
    assert score(torch.zeros(100, 50), torch.zeros(100, dtype=torch.long))["top1"] == 100


@pytest.mark.parametrize("broken", [slice(None), 0, 3])
def test_logits_that_are_not_numbers_are_wrong_answers(broken: slice | int) -> None:
    logits, labels = nn.functional.one_hot(torch.arange(10), 10).float(), torch.arange(10)
    logits[:4, broken] = float("nan")
    result = score(logits, labels)
    assert (result["top1"], result["top5"]) == (60, 60)
