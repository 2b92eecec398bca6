"""The rehearsal for a GPU (tests/support/rehearsal.py) stops what a GPU would, and names the line that does it."""

import inspect
import math
import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from project import RUN
from rehearsal import ALLOWED_COPIES, ALLOWED_HOST_READS, GPU, PACKAGE, NotOnAGpu, OnGpu, rehearsal
from torch.nn import functional as F

from us3l.data.store import Split, Store
from us3l.data.stream import Stream
from us3l.evaluation.calibration import calibrate_batch_norms
from us3l.evaluation.features import EvaluationImages
from us3l.evaluation.monitor import look
from us3l.models.backbones.backbone import Backbone
from us3l.params.dataset import Views
from us3l.params.protocols.calibration import Calibration
from us3l.params.protocols.protocol import KINDS
from us3l.params.runs import PretrainRun
from us3l.pipeline.code import EVALUATIONS
from us3l.training.build import build_train_step
from us3l.training.trainer import Trainer
from us3l.utils.distributed import World

triton = pytest.importorskip("triton", reason="PyTorch comes with Triton on Linux only")

from us3l.models import ghost_batch_norm_triton  # noqa: E402

# --- the rules ------------------------------------------------------------------------------------------------------

STOPPED = {
    "x.sum().item()": "makes the host wait",
    "float(x.sum())": "makes the host wait",
    "bool(x.sum() > 0)": "makes the host wait",
    "x.tolist()": "makes the host wait",
    "x.cpu()": "makes the host wait",
    "x.to('cpu', non_blocking=True)": "makes the host wait",
    "torch.zeros(3).copy_(x)": "makes the host wait",
    "torch.equal(x, x)": "makes the host wait",
    "x.nonzero()": "makes the host wait",
    "x[x > 0]": "makes the host wait",
    "x.unique()": "makes the host wait",
    "x.repeat_interleave(torch.ones_like(x).long())": "makes the host wait",
    "x.numpy()": "NumPy cannot read the GPU",
    "x + torch.zeros(3)": "mixes",
    "x[torch.arange(2)]": "mixes",
    "torch.cat([x, torch.zeros(3)])": "mixes",
    "torch.stack([x.sum(), torch.zeros(())])": "mixes",
    "torch.zeros(3).to(x.device)": "copies to the GPU and waits",
    "torch.tensor([1.0], device=x.device)": "copies to the GPU and waits",
    "x.copy_(torch.zeros(3))": "copies to the GPU and waits",
    "torch.nn.Linear(1, 1).to(x.device)": "copies to the GPU and waits",
}
PASSED = [
    "x + torch.zeros(3, device=x.device)",
    "x + torch.zeros(())",
    "x * torch.zeros(3).to(x.device, non_blocking=True)",
    "x.where(x > 0, 0.0)",
    "x[torch.arange(2, device=x.device)]",
    "x.clone().copy_(x)",
    "F.one_hot(x.long(), 5)",
    "F.embedding_bag(x.long()[:, None], torch.ones_like(x)[:, None], mode='sum')",
    "x.repeat_interleave(torch.ones_like(x).long(), output_size=3)",
    "x.new_zeros(2), x.dtype, x.shape, len(x), x.is_cuda and x.device.type == 'cuda' or 1 / 0",
]


def in_the_package(expression: str) -> Any:
    """The value of an expression of a tensor x on the GPU, as if a module of the package had it."""
    source = f"def expression(x):\n    return {expression}\n"
    names: dict[str, Any] = {"torch": torch, "F": F}
    exec(compile(source, PACKAGE / "module.py", "exec"), names)
    with rehearsal():
        return names["expression"](torch.arange(3.0, device=GPU))


@pytest.mark.parametrize("expression", STOPPED)
def test_what_a_gpu_waits_for_or_refuses_is_stopped(expression: str) -> None:
    message = f"^module.py expression, line 2: .*{STOPPED[expression]}"
    with pytest.raises(NotOnAGpu, match=message):
        in_the_package(expression)


@pytest.mark.parametrize("expression", PASSED)
def test_what_a_gpu_goes_on_with_passes(expression: str) -> None:
    in_the_package(expression)


def test_gradients_are_those_of_the_cpu() -> None:
    def gradients(device: torch.device) -> list[torch.Tensor]:
        x = torch.linspace(0, 1, 12, device=device).view(3, 4).requires_grad_()
        loss = F.cross_entropy(x[:, :3] @ x[:, 1:].T, torch.arange(3, device=device)) + x[1, ::2].prod()
        loss.backward()
        with torch.no_grad():
            return [x.grad, x.sub_(x.grad)]

    with rehearsal():
        found = gradients(GPU)
    for one, other in zip(found, gradients(torch.device("cpu")), strict=True):
        assert isinstance(one, OnGpu) and torch.equal(one.inner, other)


@pytest.mark.parametrize("place", ALLOWED_HOST_READS | ALLOWED_COPIES)
def test_the_functions_that_may_wait_exist(place: str) -> None:
    path, name = place.split(" ")
    found: Any = import_module(f"us3l.{path.removesuffix('.py').replace('/', '.')}")
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)


# --- planted faults -------------------------------------------------------------------------------------------------

CROP = {"resized_crop": {"size": 8, "scale": [0.5, 1.0]}, "color_jitter": {"brightness": 0.4}, "grayscale": 0.5}
VIEWS = Views.model_validate(
    {"normalize": {"mean": [0.4] * 3, "std": [0.3] * 3}, "pretrain": [CROP, CROP], "linear": CROP}, strict=False
)
MOCO = {**RUN["method"], "name": "moco", "base_loss": "queue", "distillation_loss": "queue", "queue": 8}
RELATIONS = {**RUN["method"], "distillation_loss": "rkd-distance"}
ADAMW = {"optimizer": {"kind": "adamw", "lr": 0.001}}
TRAINED = {"optimizer": {"lr": 0.1}, "epochs": 1, "batch_size": 4}


def noise() -> Store:
    draw = np.random.default_rng(0)
    split = Split(draw.integers(0, 256, (8, 8, 8, 3), np.uint8), np.arange(8) % 2)
    return Store(split, split, ("a", "b"), "noise")


def train(**changes: Any) -> None:
    """Take a step of the last epoch."""
    run = PretrainRun.model_validate(RUN | {"batch": {"size": 8, "shards": 2}} | changes, strict=False)
    world, store = World(0, 1, GPU), noise()
    stream = Stream(store.train, run.batch, VIEWS.pretrain, VIEWS.normalize, 0, world, run.method.name == "moco")
    train_step = build_train_step(run, Backbone(run.backbone, 3), 2, 0, world)
    trainer = Trainer(run, train_step, stream, Path(os.devnull, "state"), math.inf, "rehearsal")
    trainer.epoch = run.epochs - 1
    for shards in stream.shards(trainer.epoch):
        trainer.advance(shards)
        trainer.advance(shards)


def evaluate(kind: str) -> None:
    """Calibrate a network and evaluate it."""
    network, images = Backbone("small-resnet", 3).build(0.25).to(GPU), EvaluationImages(noise(), VIEWS, 0, GPU)
    calibrate_batch_norms([network], Calibration(passes=1, batch_size=4), images._train, VIEWS, 0)
    settings = {"neighbours": 2} if kind == "knn" else TRAINED
    protocol = KINDS[kind].model_validate({"kind": kind, **settings}, strict=False)
    import_module(EVALUATIONS[kind]).evaluate_networks([network.eval()], images, protocol)


class Fault(NamedTuple):
    """An edit of a module, a path in us3l; at: the line that is stopped, if another than the edited one."""

    module: str
    old: str
    new: str
    rehearse: Callable[[], None]
    at: str = ""


FAULTS = {
    "item": Fault("training/trainer.py", "self.totals + results if", "self.totals + results.mean().item() if", train),
    "condition": Fault("training/step.py", "value.backward()", "value.isfinite() and value.backward()", train),
    "any": Fault(
        "training/regularizer.py",
        "gradients.addcmul_(coefficients, values, value=2)",
        "gradients.addcmul_(coefficients, values, value=2 if coefficients.any() else 0)",
        train,
    ),
    "cpu": Fault(
        "training/teacher.py",
        "unshuffled = order.argsort()",
        "unshuffled = order.cpu().argsort()",
        lambda: train(method=MOCO),
    ),
    "index on the CPU": Fault(
        "evaluation/classifier.py",
        "RandomKey(seed, Purpose.LINEAR_ORDER, epoch), len(labels), labels.device)",
        'RandomKey(seed, Purpose.LINEAR_ORDER, epoch), len(labels), torch.device("cpu"))',
        lambda: evaluate("features-linear"),
        at="return (kept[samples].split(sizes, 1) for samples in numbers)",
    ),
    "arange on the CPU": Fault(
        "losses/embeddings.py",
        "torch.arange(logits.shape[-1], device=logits.device)",
        "torch.arange(logits.shape[-1])",
        train,
        at="return F.cross_entropy(logits.flatten(0, -2), positives",
    ),
    "zeros on the CPU": Fault(
        "training/flat_parameters.py",
        "leaf.new_zeros(leaf.numel())",
        "torch.zeros(leaf.numel())",
        train,
        at="return torch.cat(gradients)",
    ),
    "taps on the CPU": Fault(
        "data/augment/resample.py",
        "torch.arange(math.ceil(2 * radius * max(1, before / after)), device=start.device)",
        "torch.arange(math.ceil(2 * radius * max(1, before / after)))",
        train,
        at="pixel = (center - radius * wide + 1).floor_() + taps",
    ),
    "copy that waits": Fault(
        "training/optimizers.py", "values.dtype, non_blocking=True)", "values.dtype)", lambda: train(**ADAMW)
    ),
    "constants copied": Fault(
        "data/augment/views.py",
        "None, None].to(x.device, non_blocking=True)",
        "None, None].to(x.device)",
        train,
    ),
    "nonzero": Fault(
        "data/augment/color.py",
        "return x.lerp_(luma(x), _column(chosen))",
        "return x.index_copy_(0, chosen.nonzero()[:, 0], luma(x).expand_as(x))",
        train,
    ),
    "mask": Fault(
        "losses/relations.py",
        "count = embeddings.shape[-2]",
        "count = len(distances[distances > 0])",
        lambda: train(method=RELATIONS),
    ),
    "tolist": Fault(
        "evaluation/knn.py",
        "F.one_hot(labels[neighbours]",
        "F.one_hot(labels[neighbours.tolist()]",
        lambda: evaluate("knn"),
    ),
    "comparison": Fault("evaluation/finetune.py", "if len(x) == 1:", "if x.sum() == 0:", lambda: evaluate("finetune")),
    "numpy": Fault(
        "evaluation/calibration.py",
        "x = x.contiguous(memory_format=torch.channels_last)",
        "x = torch.from_numpy(x.numpy())",
        lambda: evaluate("knn"),
    ),
    "features on the CPU": Fault(
        "evaluation/features.py",
        "return [torch.cat(of_one) for",
        "return [torch.cat(of_one).cpu() for",
        lambda: evaluate("linear"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_caught_at_its_line(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    line = plant(fault, monkeypatch)
    with rehearsal(), pytest.raises(NotOnAGpu, match=rf"^{re.escape(fault.module)} \S+, line {line}: "):
        fault.rehearse()


def plant(fault: Fault, patch: pytest.MonkeyPatch) -> int:
    """Give the functions of a module the code of its edited source; the number of the line to be stopped."""
    path = PACKAGE / fault.module
    text = path.read_text()
    assert text.count(fault.old) == 1
    text = text.replace(fault.old, fault.new)
    edited = codes(compile(text, path, "exec"))
    for function in functions(import_module(f"us3l.{fault.module.removesuffix('.py').replace('/', '.')}")):
        if (code := edited.get(function.__qualname__)) and code != function.__code__:
            patch.setattr(function, "__code__", code)
    return text[: text.index(fault.at or fault.new)].count("\n") + 1


def codes(code: CodeType) -> dict[str, CodeType]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return {code.co_qualname: code} | {name: each for one in inner for name, each in codes(one).items()}


def functions(module: ModuleType) -> Iterator[FunctionType]:
    classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    for each in (value for owner in (module, *classes) for value in vars(owner).values()):
        if isinstance(found := inspect.unwrap(each) if callable(each) else each, FunctionType):
            yield found


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_without_a_fault_evaluations_pass(kind: str) -> None:
    with rehearsal():
        evaluate(kind)


def test_a_monitor_waits_for_nothing_but_its_findings() -> None:
    with rehearsal():
        seen = look([Backbone("small-resnet", 3).build(0.25).to(GPU)], noise(), VIEWS, GPU)
    assert {*map(type, seen["knn"] + seen["rank"] + seen["spread"])} == {float}


@pytest.mark.parametrize("changes", [{}, {"method": MOCO}, {"method": RELATIONS}, ADAMW])
def test_without_a_fault_trainings_pass(changes: dict[str, Any]) -> None:
    with rehearsal():
        train(**changes)


# --- kernels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shortcut", [True, False])
def test_kernels_are_launched_with_tensors_of_the_gpu_alone(shortcut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []

    def launch(kernel: Any, *arguments: Any, **options: Any) -> None:
        tensors = [each for each in arguments if isinstance(each, torch.Tensor)]
        assert tensors and all(isinstance(each, OnGpu) and each.is_contiguous() for each in tensors)
        launched.append(kernel)

    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", launch)
    fused = ghost_batch_norm_triton.ghost_batch_norm
    with rehearsal():
        x, other = torch.ones(2, 4, 8, 2, 2, device=GPU).requires_grad_()
        weight, bias = torch.ones(2, 8, device=GPU).requires_grad_()
        fused(x, weight, bias, 2, 1e-5, other if shortcut else None, True).sum().backward()
    assert len(launched) == 5
