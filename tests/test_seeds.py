"""What must differ: between purposes, seeds and epochs no random number is used twice, and what each use is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import CPU
from project import params
from short_probes import shorten_probes
from stages import pass_stage, prepared
from torch import Tensor

from us3l.data.images import open_images
from us3l.data.store import Split, Store
from us3l.data.stream import Stream
from us3l.evaluation import features_linear, finetune, knn, linear
from us3l.evaluation.calibration import calibrate_batch_norms
from us3l.evaluation.classifier import linear_layer
from us3l.evaluation.features import EvaluationImages
from us3l.models.backbones.backbone import Backbone
from us3l.params.params import Params
from us3l.params.protocols.calibration import Calibration
from us3l.params.runs import Batch, PretrainRun
from us3l.params.sampling import Sampling
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.probes.outcome import describe
from us3l.training.build import build_train_step
from us3l.training.step import TrainStep
from us3l.training.width_sampling import sample
from us3l.utils import philox
from us3l.utils.checkpoint import load
from us3l.utils.distributed import World
from us3l.utils.philox import Purpose
from us3l.utils.records import read_record

ORDER = "order"  # a permutation, beside the draws of the parts 0, 1, ...
Use = tuple[Purpose, int, int, int | str]  # purpose, seed, epoch, part


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[Use]:
    """The addresses of all random numbers that are drawn, but for the images."""
    found: set[Use] = set()
    compute = philox.philox

    def listen(counter: Any, key: tuple[int, int]) -> Any:
        _, _, epoch, last = counter
        for word in torch.as_tensor(last).unique().tolist():
            part = word & 0xFFFF
            found.add((Purpose(word >> 16), key[0], epoch, ORDER if part == philox.ORDER_PART else part))
        return compute(counter, key)

    monkeypatch.setattr(philox, "philox", listen)
    return found


# --- purposes and epochs --------------------------------------------------------------------------------------------

VIEWS = Plan(Params.model_validate(params())).run("tiny", "us3l").data.dataset.views
VIEWS = VIEWS.model_copy(update={"linear": VIEWS.pretrain[0]})
EPOCHS = 2
TRAINED = {"epochs": EPOCHS, "batch_size": 8, "optimizer": {"lr": 0.1}}


def split() -> Split:
    return Split(np.zeros((16, 8, 8, 1), np.uint8), np.arange(16) % 2)


def network() -> torch.nn.Module:
    return Backbone("small-resnet", 1).build(0.25).eval()


def stream(seed: int, epoch: int, shuffled: bool) -> None:
    made = Stream(split(), Batch(size=8), VIEWS.pretrain, VIEWS.normalize, seed, World(0, 1, CPU), shuffled)
    list(made.shards(epoch))


def calibrated(seed: int) -> None:
    calibrate_batch_norms([network()], Calibration(passes=EPOCHS, batch_size=8), open_images(split(), CPU), VIEWS, seed)


def evaluated(seed: int, protocol: Any, **settings: Any) -> None:
    content = params()
    content["protocols"]["quick"] = settings
    made = Params.model_validate(content).protocols["quick"]
    protocol.evaluate_networks(
        [network()], EvaluationImages(Store(split(), split(), ("a", "b"), ""), VIEWS, seed, CPU), made
    )


def of_epochs(purpose: Purpose, *parts: int | str) -> set[tuple[Purpose, int, int | str]]:
    return {(purpose, epoch, part) for epoch in range(EPOCHS) for part in parts}


ORDER_AND_VIEWS = {(Purpose.ORDER, 0, ORDER), (Purpose.AUGMENT, 0, 0), (Purpose.AUGMENT, 0, 1)}
LEARNING = of_epochs(Purpose.LINEAR_ORDER, ORDER) | of_epochs(Purpose.LINEAR_AUGMENT, 0)

# What is done with a seed; the purposes, epochs and parts of what it draws. One of one epoch is given the epoch, too.
IN_ONE_EPOCH: dict[str, tuple[Callable[[int, int], Any], set[tuple[Purpose, int, int | str]]]] = {
    "batches": (lambda seed, epoch: stream(seed, epoch, shuffled=False), ORDER_AND_VIEWS),
    "batches that are shuffled for a teacher": (
        lambda seed, epoch: stream(seed, epoch, shuffled=True),
        ORDER_AND_VIEWS | {(Purpose.SHUFFLE, 0, 0)},
    ),
    "widths": (
        lambda seed, epoch: sample(Sampling(schedule="constant"), epoch, 400, seed, 0),
        {(Purpose.WIDTHS, 0, 0)},
    ),
}
IN_ALL_EPOCHS: dict[str, tuple[Callable[[int], Any], set[tuple[Purpose, int, int | str]]]] = {
    "calibration": (calibrated, of_epochs(Purpose.CALIBRATE, ORDER, 0)),
    "linear": (lambda seed: evaluated(seed, linear, **TRAINED), LEARNING),
    "fine-tuning": (lambda seed: evaluated(seed, finetune, kind="finetune", **TRAINED), LEARNING),
    "linear on kept features": (
        lambda seed: evaluated(seed, features_linear, kind="features-linear", **TRAINED),
        of_epochs(Purpose.LINEAR_ORDER, ORDER),
    ),
    "nearest neighbours": (lambda seed: evaluated(seed, knn, kind="knn", neighbours=2), set()),
}


def test_a_purpose_never_changes_its_number() -> None:
    numbers = ["ORDER", "WIDTHS", "AUGMENT", "CALIBRATE", "LINEAR_ORDER", "LINEAR_AUGMENT", "INIT", "SHUFFLE"]
    assert {purpose.name: purpose.value for purpose in Purpose} == {name: i for i, name in enumerate(numbers)}


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 0), (0, 3), (7, 3)])
@pytest.mark.parametrize("use", IN_ONE_EPOCH)
def test_what_is_drawn_for_an_epoch_is_of_its_purpose_its_seed_and_that_epoch(
    used: set[Use], use: str, seed: int, epoch: int
) -> None:
    draw, expected = IN_ONE_EPOCH[use]
    draw(seed, epoch)
    assert used == {(purpose, seed, epoch, part) for purpose, _, part in expected}


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("use", IN_ALL_EPOCHS)
def test_each_epoch_of_an_evaluation_draws_anew_by_its_purpose_and_its_seed(
    used: set[Use], use: str, seed: int
) -> None:
    draw, expected = IN_ALL_EPOCHS[use]
    draw(seed)
    assert used == {(purpose, seed, epoch, part) for purpose, epoch, part in expected}


# --- initial values -------------------------------------------------------------------------------------------------


def small_run(**changes: Any) -> PretrainRun:
    return PretrainRun.model_validate(params(**changes)["studies"]["tiny"]["runs"]["us3l"])


MOCO = {
    "name": "moco",
    "base_loss": "queue",
    "distillation_loss": "queue",
    "queue": 8,
    "momentum": 0.9,
    "projector": {"hidden": 16, "output": 8},
}


def initial(seed: int, **run: Any) -> TrainStep:
    return build_train_step(small_run(**run), Backbone("small-resnet", 1), 10, seed, World(0, 1, CPU))


def student(seed: int) -> dict[str, Tensor]:
    weights = initial(seed).student.weights.parameters
    return {name: each for name, each in weights.items() if len(each.unique()) > 1}


def queue(seed: int) -> dict[str, Tensor]:
    return {"queue": initial(seed, method=MOCO, batch={"size": 8}).teacher.state()["queue"]}


INITIAL: dict[str, Callable[[int], dict[str, Tensor]]] = {
    "student": student,
    "queue": queue,
    "classifier": lambda seed: dict(linear_layer(16, 4, seed, CPU).named_parameters()),
}


@pytest.mark.parametrize("what", INITIAL)
def test_initial_values_are_those_of_the_seed_and_of_nothing_before(what: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = INITIAL[what](0)
    assert torch.equal(torch.get_rng_state(), before), "what comes after it does not depend on it"
    torch.manual_seed(2)
    again, other = INITIAL[what](0), INITIAL[what](1)
    assert first
    for name, values in first.items():
        assert torch.equal(values, again[name]), name
        assert (values != other[name]).float().mean() > 0.9, name


# --- stages ---------------------------------------------------------------------------------------------------------

SEED = 5
FINETUNE = {"kind": "finetune", **TRAINED}
KNN = {"kind": "knn", "neighbours": 2}
STAGES: dict[str, tuple[dict[str, Any], dict[str, Any], set[Purpose]]] = {  # protocol, method, purposes
    "pretrain": (KNN, {}, {Purpose.ORDER, Purpose.AUGMENT, Purpose.WIDTHS}),
    "shuffled": (KNN, {"method": MOCO}, {Purpose.ORDER, Purpose.AUGMENT, Purpose.WIDTHS, Purpose.SHUFFLE}),
    "calibrate": (KNN, {}, {Purpose.CALIBRATE}),
    "linear": (TRAINED, {}, {Purpose.LINEAR_ORDER, Purpose.LINEAR_AUGMENT}),
    "finetune": (FINETUNE, {}, {Purpose.LINEAR_ORDER, Purpose.LINEAR_AUGMENT}),
}


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that PyTorch's own generators were given."""
    given: list[int] = []
    seed_all = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (given.append(seed), seed_all(seed))[1])
    return given


def passed(stage: str, protocol: dict[str, Any], used: set[Use], **run: Any) -> RunStage:
    """Pass the stages of a small run with the seed 5 up to this one; `used` is of this one alone."""
    content = params(batch={"size": 8}, **run)
    content["studies"]["tiny"]["seeds"] = [SEED]
    content["datasets"]["digits"]["views"]["linear"] = {"flip": 0.5}
    content["protocols"]["quick"] = protocol
    planned = Plan(Params.model_validate(content)).run("tiny", "us3l")
    prepared(planned.data)
    for each in planned.stages[: planned.stages.index(stage) + 1]:
        used.clear()
        job = RunStage(planned, each, SEED)
        pass_stage(job, CPU)
    return job


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_draws_with_its_jobs_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: set[Use], seeds: list[int], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shorten_probes(monkeypatch)
    protocol, run, purposes = STAGES[name]
    job = passed("pretrain" if name == "shuffled" else name, protocol, used, **run)
    example = {(Purpose.AUGMENT, 0)} if job.stage == "pretrain" else set()  # an image to know its shape by
    assert {(purpose, seed) for purpose, seed, _, _ in used} == {(purpose, SEED) for purpose in purposes} | example
    assert set(seeds) == {SEED}
    if job.stage == "pretrain":
        made = build_train_step(job.run.run, Backbone("small-resnet", 1), 6, SEED, World(0, 1, CPU))
        assert read_record(job.record)["probe"]["initial"] == describe(made.state())


def test_an_untrained_network_is_that_of_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = params()
    content["studies"]["tiny"] |= {"seeds": [0, SEED], "tables": {}}
    content["studies"]["tiny"]["runs"] = {
        "as-is": {"kind": "untrained", "dataset": "digits", "backbone": "small-resnet"}
    }
    planned = Plan(Params.model_validate(content)).run("tiny", "as-is")
    prepared(planned.data)
    for seed in planned.seeds:
        pass_stage(RunStage(planned, "pretrain", seed), CPU)
        weights = load(planned.checkpoint(seed))[0]
        torch.manual_seed(seed)
        for name, parameter in Backbone("small-resnet", 1).build(1.0).named_parameters():
            assert torch.equal(weights[f"backbone.{name}"], parameter), name
