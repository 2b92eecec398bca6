"""Training on features that are kept, and training of the whole network, against loops with torch.optim.SGD."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import CPU, evaluated, network, pictures
from project import params
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.data.store import Split, Store
from us3l.evaluation.classifier import linear_layer, train_on_features
from us3l.evaluation.features_linear import evaluate_networks as features_linear_results
from us3l.evaluation.finetune import Tuned, evaluate_networks
from us3l.evaluation.metrics import score
from us3l.models.backbones.backbone import Backbone
from us3l.models.complexity import cost
from us3l.models.pruning import prune
from us3l.params.params import Params
from us3l.params.protocols.finetune import Finetune
from us3l.params.protocols.linear import FeaturesLinear
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.stages import evaluate
from us3l.utils.errors import UserError
from us3l.utils.philox import Purpose, RandomKey, permutation
from us3l.utils.records import read_record

OPTIMIZER = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
STEPS = {"schedule": "multistep", "milestones": [1]}


# --- a classifier on features that are kept -------------------------------------------------------------------------


def features_linear(epochs: int, **optimizer: Any) -> FeaturesLinear:
    record = {"kind": "features-linear", "epochs": epochs, "batch_size": 16, "optimizer": OPTIMIZER | optimizer}
    return FeaturesLinear.model_validate(record)


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three clouds of features [count, 5] that planes separate, but for a few."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    centres = torch.tensor([[3.0, 0, 0, 0, 1], [0, 3, 0, 1, 0], [0, 0, 3, 0, 0]])
    return centres[labels] + torch.randn(count, 5, generator=generator), labels


def test_weights_are_those_of_torchs_sgd() -> None:
    (features, labels), seed = blobs(90, 0), 3
    layer = linear_layer(5, 3, seed, CPU)
    theirs = torch.optim.SGD(layer.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    ours = train_on_features([features], labels, 3, features_linear(3, **STEPS), seed)
    for epoch in range(3):
        theirs.param_groups[0]["lr"] = 0.05 if epoch == 0 else 0.005
        for batch in permutation(RandomKey(seed, Purpose.LINEAR_ORDER, epoch), 90, CPU).split(16):
            theirs.zero_grad()
            F.cross_entropy(layer(features[batch]), labels[batch]).backward()
            theirs.step()
    torch.testing.assert_close(ours.weights.T, layer.weight.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.biases[0], layer.bias.detach(), rtol=0, atol=1e-6)


def test_its_accuracy_is_that_of_logistic_regression() -> None:
    (features, labels), (queries, test_labels) = blobs(600, 0), blobs(2000, 1)
    ours = train_on_features([features], labels, 3, features_linear(60, weight_decay=0.0), 0)
    theirs = LogisticRegression(C=1e6).fit(features.numpy(), labels.numpy())
    expected = 100 * theirs.score(queries.numpy(), test_labels.numpy())
    assert expected > 90
    assert score(ours([queries])[0], test_labels)["top1"] == pytest.approx(expected, abs=1)


def test_the_features_are_those_of_the_test_view_whatever_the_augmentation() -> None:
    plain, rotated = (evaluated(*pictures(), **view) for view in ({}, {"affine": {"degrees": 90.0}}))
    frozen = network(0.5).eval()
    ours, others = (features_linear_results([frozen], images, features_linear(2))[0] for images in (plain, rotated))
    assert torch.equal(ours.logits, others.logits)


def test_bright_rows_are_told_apart_without_a_mistake() -> None:
    images = evaluated(*pictures())
    (result,) = features_linear_results([Backbone("pixels", 1).build(1.0)], images, features_linear(10))
    assert score(result.logits, pictures()[1][60:])["top1"] == 100


# --- all weights ----------------------------------------------------------------------------------------------------


def finetune(epochs: int = 1, classifier_lr: float | None = None, **optimizer: Any) -> Finetune:
    record = {"kind": "finetune", "epochs": epochs, "batch_size": 16, "classifier_lr": classifier_lr}
    return Finetune.model_validate(record | {"optimizer": OPTIMIZER | optimizer})


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


def train_beside_torchs_sgd(ours: Tuned, classifier_lr: float) -> Iterator[nn.Module]:
    """After each of three steps of ours, what torch's SGD makes of a copy in as many."""
    theirs = deepcopy(ours.model)
    groups = [{"params": theirs[0].parameters()}, {"params": theirs[1].parameters(), "lr": classifier_lr}]
    sgd = torch.optim.SGD(groups, 0.05, momentum=0.9, weight_decay=0.01)
    x, labels = batch()
    for _ in range(3):
        sgd.zero_grad()
        F.cross_entropy(theirs(x), labels).backward()
        sgd.step()
        ours.step(x, labels, 0.05)
        yield theirs


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("classifier_lr", [None, 0.5])
def test_steps_are_those_of_torchs_sgd_with_a_group_for_the_classifier(classifier_lr: float | None) -> None:
    ours = Tuned(network(0.5), linear_layer(64, 3, 0, CPU), finetune(classifier_lr=classifier_lr))
    for step, theirs in enumerate(train_beside_torchs_sgd(ours, classifier_lr or 0.05)):
        for (name, one), other in zip(ours.model.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12, msg=f"{name} in step {step}")
    for one, other in zip(ours.model.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_the_classifiers_rate_follows_the_networks_schedule() -> None:
    ours = Tuned(network(0.5), linear_layer(64, 3, 0, CPU), finetune(classifier_lr=0.5))
    before, (x, labels) = ours.model[1].bias.detach().clone(), batch()
    gradient = torch.autograd.grad(F.cross_entropy(ours.model(x), labels), ours.model[1].bias)[0]
    ours.step(x, labels, 0.005)
    torch.testing.assert_close(ours.model[1].bias, before - 0.05 * (gradient + 0.01 * before))


def test_all_widths_see_the_same_augmented_images_and_do_not_disturb_one_another() -> None:
    images = evaluated(*pictures(), affine={"degrees": 20.0})
    together = evaluate_networks([network(1.0).eval(), network(0.25).eval()], images, finetune(2))
    alone = evaluate_networks([network(0.25).eval()], images, finetune(2))
    assert torch.equal(together[1].logits, alone[0].logits)


def test_the_network_sees_the_linear_view_of_every_image_anew_in_every_epoch() -> None:
    images, tuned, seen = evaluated(*pictures(), affine={"degrees": 90.0}), network(0.25).eval(), []
    tuned.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    evaluate_networks([tuned], images, finetune(2))
    for epoch, each in enumerate(torch.cat(seen).split(60)):
        order = permutation(RandomKey(0, Purpose.LINEAR_ORDER, epoch), 60, CPU)
        (expected,) = images.augmented(epoch, [order])
        assert torch.equal(each, expected)


def test_the_result_is_the_evaluation_modes_after_the_last_epoch() -> None:
    images, tuned = evaluated(*pictures()), network(0.5).eval()
    before = deepcopy(tuned.state_dict())
    (result,) = evaluate_networks([tuned], images, finetune(8))
    assert score(result.logits, pictures()[1][60:])["top1"] > 90
    assert not tuned.training
    for name, value in tuned.state_dict().items():
        assert not torch.equal(value, before[name]), name


class OnePixel(nn.Module):
    """A BatchNorm of one value for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.mean((2, 3), keepdim=True)).flatten(1)


def test_a_last_batch_of_one_image_is_left_out() -> None:
    images, ours = evaluated(*pictures(51)), OnePixel().eval()  # 34 for training
    protocol = Finetune.model_validate(finetune().model_dump() | {"batch_size": 33})
    (result,) = evaluate_networks([ours], images, protocol)
    assert result.logits.isfinite().all()
    assert ours.norm.num_batches_tracked == 1


class Partly(nn.Module):
    """A frozen layer, a layer, and weights that have no part in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(64, 8).requires_grad_(False)
        self.layer = nn.Linear(8, 8)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.frozen(x.flatten(1)).relu())


@pytest.mark.usefixtures("float64")
def test_frozen_and_unused_weights_stay_and_the_others_are_torchs_sgds() -> None:
    torch.manual_seed(0)
    ours = Tuned(Partly(), linear_layer(8, 3, 0, CPU), finetune(classifier_lr=0.5))
    before = deepcopy(ours.model[0].state_dict())
    *_, theirs = train_beside_torchs_sgd(ours, 0.5)
    for name, value in ours.model.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-10, atol=1e-12, msg=name)
    after = ours.model[0].state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} == {
        "frozen.weight",
        "frozen.bias",
        "unused",
    }


class ChannelsLast(nn.Module):
    """Lays its images out in memory otherwise than its weights, whose gradients then lie as the images do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(-1, 4, 4, 4).contiguous(memory_format=torch.channels_last)).mean((2, 3))


def test_gradients_that_lie_otherwise_in_memory_than_their_weights_are_taken_right() -> None:
    torch.manual_seed(0)
    ours = Tuned(ChannelsLast(), linear_layer(8, 3, 0, CPU), finetune())
    *_, theirs = train_beside_torchs_sgd(ours, 0.05)
    for one, other in zip(ours.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_views_of_which_a_network_makes_features_of_different_lengths_are_refused() -> None:
    images = evaluated(*pictures(), resized_crop={"size": 4})
    with pytest.raises(
        UserError, match=r"16 features of views.linear's 4x4 pixels and 64 features of views.test's 8x8"
    ):
        evaluate_networks([Backbone("pixels", 1).build(1.0)], images, finetune())


# --- pruned networks ------------------------------------------------------------------------------------------------


def half_silent() -> nn.Module:
    """A network that has lost half of its filters."""
    weights = dict(network(1.0).named_parameters())
    build, image = Backbone("small-resnet", 1).build, torch.zeros(1, 1, 8, 8)
    return prune(weights, build, 0.5, "filters", image).eval()


def evaluation_of(run: str, tuned: nn.Module, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of `tuned`, which is fine-tuned as the one network of the run: `us3l`, or `cut`, a pruned one."""
    made = params()
    study = made["studies"]["tiny"] | {"widths": [0.5]}
    study["runs"] |= {"cut": {"kind": "prune", "weights_from": "us3l", "criterion": "filters"}}
    made |= {"studies": {"tiny": study}, "protocols": {"quick": finetune(3).model_dump(mode="json")}}
    images, labels = (each.numpy() for each in pictures())
    store = Store(*[Split(images, labels)] * 2, ("top", "middle", "bottom"), "0")
    patch.chdir(folder)
    patch.setattr(evaluate, "open_store", lambda folder: store)
    plan = Plan(Params.model_validate(made)).run("tiny", run)
    seals = dict.fromkeys([plan.checkpoint(0), plan.network(0, 0.5)], "")
    patch.setattr(evaluate, "networks_to_evaluate", lambda *arguments: ({0.5: tuned}, seals))
    evaluate.evaluate(RunStage(plan, "finetune", 0), CPU, evaluate_networks)
    return read_record(plan.evaluation_record(0, 0.5))


def test_what_is_pruned_stays_so_and_the_rest_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, image = half_silent(), torch.zeros(1, 1, 8, 8)
    before = {name: weights.detach().clone() for name, weights in tuned.named_parameters()}
    costs = cost(tuned, image, 3)
    record = evaluation_of("cut", tuned, tmp_path, monkeypatch)
    for name, weights in tuned.named_parameters():
        gone = before[name.replace("bias", "weight")] == 0  # all biases begin with zero
        assert torch.equal(weights == 0, gone) and not torch.equal(weights, before[name]), name
    assert {key: record[key] for key in costs} == costs
    assert record["top1"] > 90


def test_what_is_zero_in_other_networks_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = half_silent()
    before = cost(tuned, torch.zeros(1, 1, 8, 8), 3)
    record = evaluation_of("us3l", tuned, tmp_path, monkeypatch)
    assert record["parameters"] > before["parameters"]
