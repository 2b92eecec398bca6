"""Training on features that are kept, and training of the whole network, against loops with torch.optim.SGD."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from pictures import CPU, evaluated, network, pictures
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.classifier import linear_layer, train_on_kept
from us3l.features_linear import answers as features_linear_answers
from us3l.finetune import Tuned, answers
from us3l.models import backbone
from us3l.params.evaluation import FeaturesLinear, Finetune
from us3l.random import Purpose, permutation
from us3l.scores import score

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
    (ours,) = train_on_kept([features], labels, 3, features_linear(3, **STEPS), seed)
    for epoch in range(3):
        theirs.param_groups[0]["lr"] = 0.05 if epoch == 0 else 0.005
        for batch in permutation(seed, Purpose.LINEAR_ORDER, epoch, 90, CPU).split(16):
            theirs.zero_grad()
            F.cross_entropy(layer(features[batch]), labels[batch]).backward()
            theirs.step()
    for one, other in zip(ours.layer.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_its_accuracy_is_that_of_logistic_regression() -> None:
    (features, labels), (asked, answers) = blobs(600, 0), blobs(2000, 1)
    (ours,) = train_on_kept([features], labels, 3, features_linear(60, weight_decay=0.0), 0)
    theirs = LogisticRegression(C=1e6).fit(features.numpy(), labels.numpy())
    expected = 100 * theirs.score(asked.numpy(), answers.numpy())
    assert expected > 90
    assert score(ours(asked), answers)["top1"] == pytest.approx(expected, abs=1)


def test_the_features_are_those_of_the_test_view_whatever_the_augmentation() -> None:
    plain, rotated = (evaluated(*pictures(), **view) for view in ({}, {"affine": {"degrees": 90.0}}))
    frozen = network(0.5).eval()
    logits, others = (features_linear_answers([frozen], images, features_linear(2))[0] for images in (plain, rotated))
    assert torch.equal(logits, others)


def test_bright_rows_are_told_apart_without_a_mistake() -> None:
    images = evaluated(*pictures())
    (logits,) = features_linear_answers([backbone("pixels", 1.0, 1)], images, features_linear(10))
    assert score(logits, pictures()[1][60:])["top1"] == 100


# --- all weights ----------------------------------------------------------------------------------------------------


def finetune(epochs: int = 1, classifier_lr: float | None = None, **optimizer: Any) -> Finetune:
    record = {"kind": "finetune", "epochs": epochs, "batch_size": 16, "classifier_lr": classifier_lr}
    return Finetune.model_validate(record | {"optimizer": OPTIMIZER | optimizer})


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("classifier_lr", [None, 0.5])
def test_steps_are_those_of_torchs_sgd_with_a_group_for_the_classifier(classifier_lr: float | None) -> None:
    ours = Tuned(network(0.5), linear_layer(64, 3, 0, CPU), finetune(classifier_lr=classifier_lr))
    theirs = deepcopy(ours.model)
    groups = [{"params": part.parameters()} for part in theirs]
    groups[1]["lr"] = classifier_lr or 0.05
    sgd = torch.optim.SGD(groups, 0.05, momentum=0.9, weight_decay=0.01)
    x, labels = batch()
    for step in range(3):
        sgd.zero_grad()
        F.cross_entropy(theirs(x), labels).backward()
        sgd.step()
        ours.learn(x, labels, 0.05)
        for (name, one), other in zip(ours.model.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12, msg=f"{name} in step {step}")
    for one, other in zip(ours.model.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_the_classifiers_rate_follows_the_networks_schedule() -> None:
    ours = Tuned(network(0.5), linear_layer(64, 3, 0, CPU), finetune(classifier_lr=0.5))
    before, (x, labels) = ours.model[1].bias.detach().clone(), batch()
    gradient = torch.autograd.grad(F.cross_entropy(ours.model(x), labels), ours.model[1].bias)[0]
    ours.learn(x, labels, 0.005)
    torch.testing.assert_close(ours.model[1].bias, before - 0.05 * (gradient + 0.01 * before))


def test_all_widths_see_the_same_augmented_images_and_do_not_disturb_one_another() -> None:
    images = evaluated(*pictures(), affine={"degrees": 20.0})
    together = answers([network(1.0).eval(), network(0.25).eval()], images, finetune(2))
    alone = answers([network(0.25).eval()], images, finetune(2))
    assert torch.equal(together[1], alone[0])


def test_the_network_sees_the_linear_view_of_every_image_anew_in_every_epoch() -> None:
    images, tuned, seen = evaluated(*pictures(), affine={"degrees": 90.0}), network(0.25).eval(), []
    tuned.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    answers([tuned], images, finetune(2))
    for epoch, each in enumerate(torch.cat(seen).split(60)):
        order = permutation(0, Purpose.LINEAR_ORDER, epoch, 60, CPU)
        assert torch.equal(each, images.augmented(epoch, order))


def test_the_result_is_the_evaluation_modes_after_the_last_epoch() -> None:
    images, tuned = evaluated(*pictures()), network(0.5).eval()
    before = deepcopy(tuned.state_dict())
    (logits,) = answers([tuned], images, finetune(8))
    assert score(logits, pictures()[1][60:])["top1"] > 90
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
    (logits,) = answers([ours], images, protocol)
    assert logits.isfinite().all()
    assert ours.norm.num_batches_tracked == 1
