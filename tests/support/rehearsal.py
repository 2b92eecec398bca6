"""A rehearsal for a GPU, without one: a device `cuda` in the CPU's memory.

A tensor on it is `OnGpu`, a wrapper around a CPU tensor that computes for it. So results are numbers, other than those
of PyTorch's FakeTensorMode: whole stages run, and what they compute can be compared with the CPU. The package takes its
paths for a GPU, since `device` and `is_cuda` say so. The code of the package, and no other, is stopped where it

* makes the host wait: `.item()`, `.tolist()`, `.cpu()`, a tensor as a condition, a shape that depends on data;
* mixes devices, even by an index on the CPU, which PyTorch would copy; only a number on the CPU may meet a pointwise
  operation, as on a GPU;
* copies to the GPU and waits for it, as all copies do but those with `non_blocking`.

`ALLOWED_HOST_READS` and `ALLOWED_COPIES` name the functions that may. BatchNorm is PyTorch's own: Triton's kernels are
compared in its interpreter (tests/models/test_ghost_batch_norm_triton.py). Streams, several processes and the lease of
a GPU are not rehearsed; autocast follows the list of operations of the CPU.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from project import ROOT
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from us3l.models.ghost_batch_norm import ghost_batch_norm_eager

GPU, CPU = torch.device("cuda"), torch.device("cpu")
PACKAGE, TESTS = ROOT / "us3l", ROOT / "tests"
aten = torch.ops.aten

# Functions that wait for what the GPU has computed, by module and name.
ALLOWED_HOST_READS = {
    "data/decoded.py Decoded._decode": "which images a thread decodes, once an epoch",
    "models/complexity.py _outputs": "the cost of a network, once it is trained",
    "models/complexity.py _weights": "the cost of a network, once it is trained",
    "pipeline/probes/outcome.py _flat": "a probe's tensors, which are described on the host",
    "pipeline/probes/training.py _advance": "a probe's losses, after each of its few steps",
    "pipeline/probes/training.py _norms_into": "a probe's gradients, in each of its few steps",
    "evaluation/monitor.py _accuracy": "a look at a training, once every few epochs",
    "evaluation/monitor.py effective_rank": "a look at a training, once every few epochs",
    "evaluation/monitor.py look": "a look at a training, once every few epochs",
    "evaluation/result.py Result.on_cpu": "the logits of all test images and the classifiers, once",
    "pipeline/watching/course.py Course._read": "the losses of the last steps, once in so many or a minute",
    "training/trainer.py Trainer._finish_epoch": "the losses of an epoch, at its end",
    "training/trainer.py Trainer._require_finite": "whether an epoch, or a state to be saved, is finite",
    "utils/checkpoint.py save": "a state, once every few minutes, and the results",
}
# Functions that copy to the GPU and wait for the end of the copy.
ALLOWED_COPIES = {
    "data/resident.py to_device": "a data set, at the start",
    "evaluation/classifier.py linear_layer": "a classifier's first weights",
    "models/backbones/vit.py positions": "a position table, which is kept",
    "models/slimmable.py _move_buffers": "a network's buffers, which are kept",
    "pipeline/stages/calibrate.py _calibrated": "the networks, at the start",
    "pipeline/stages/evaluate.py Evaluation.results": "the networks, at the start",
    "pipeline/stages/pretrain.py _probe": "the network whose cost is counted",
    "pipeline/watching/monitor.py MonitorWatcher._look": "the networks of a look, once every few epochs",
    "training/flat_parameters.py FlatParameters.__init__": "the weights, at the start",
    "training/frozen_teacher.py frozen_teacher": "the weights of a teacher, at the start",
    "training/optimizers.py AdamW.__init__": "the sizes of the parameters, at the start",
    "training/queue.py Queue.__init__": "random embeddings, at the start",
    "training/regularizer.py Decay._scattered": "the decay of each weight, once an epoch",
    "training/step.py TrainStep.load_state": "a saved state, when a training continues",
    "training/trainer.py Trainer._resume": "a saved state, when a training continues",
}

COPIES = (Tensor.to, torch.tensor, torch.as_tensor)  # functions that copy to the device they are given
_calls: list[bool] = []  # the functions of PyTorch that are being called: whether they were given tensors on the GPU


class NotOnAGpu(AssertionError):
    """What a GPU would wait for or refuse, with the line of the package that does it."""


class OnGpu(Tensor):
    """A tensor on the rehearsed GPU; `inner`, on the CPU, holds its numbers."""

    inner: Tensor
    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    @torch.inference_mode(False)
    def __new__(cls, inner: Tensor) -> "OnGpu":
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, **layout)
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CPU if _calls else GPU  # PyTorch's own code sees what it computes on

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    @classmethod
    @torch.inference_mode(False)
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check(operation, args, kwargs)
        made = operation(*_map(_inner, args), **_map(_inner, kwargs))
        if operation is aten.copy_.default:
            return args[0]
        given = {id(each.inner): each for each in _tensors((args, kwargs)) if isinstance(each, cls)}

        def outer(tensor: Tensor) -> Tensor:
            """Return what an operation wrote to as it was given."""
            return given[id(tensor)] if id(tensor) in given else cls(tensor)

        return _map(outer, made)


class Rehearsal(TorchFunctionMode):
    """Makes tensors on the rehearsed GPU where the device is `cuda`, and brings back what is read."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {key: value for key, value in (kwargs or {}).items() if key != "pin_memory"}
        on_gpu = any(isinstance(each, OnGpu) for each in _tensors((args, kwargs)))
        if on_gpu and function in (Tensor.numpy, Tensor.__array__):
            raise NotOnAGpu(f"{_place()}: NumPy cannot read the GPU")
        if on_gpu and function is Tensor.tolist:
            _require_read("tolist")
            return args[0].inner.tolist()
        target, args, kwargs = _take_device(function, args, kwargs)
        made = _call(on_gpu, function, args, kwargs)
        if target is None:
            return made
        if target.type == "cuda" and not isinstance(made, OnGpu):
            if function in COPIES and not kwargs.get("non_blocking"):
                _require(ALLOWED_COPIES, f"{function.__name__} copies to the GPU and waits")
            return OnGpu(made.detach().clone())
        if target.type == "cpu" and isinstance(made, OnGpu):
            _require_read(function.__name__)
            return made.inner.clone()
        return made


class Factories(TorchDispatchMode):
    """Puts on the GPU what PyTorch's own code makes in a function of tensors there."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        is_new = type(made) is Tensor and not _tensors((args, kwargs))
        return OnGpu(made) if is_new and _calls and _calls[-1] else made


@contextmanager
def rehearsal() -> Iterator[None]:
    """Rehearse: within the block, `torch.device("cuda")` is the rehearsed GPU. Raises NotOnAGpu."""
    autocast = torch.autocast
    with ExitStack() as stack:
        for name, replacement in {
            "us3l.models.ghost_batch_norm_triton.ghost_batch_norm": ghost_batch_norm_eager,
            "torch.autocast": lambda device, **settings: autocast("cpu", **settings),
            "torch.cuda.get_device_name": lambda: "rehearsed",
            # A module's parameters are exchanged, since those of the CPU cannot become an OnGpu.
            "torch.__future__.get_overwrite_module_params_on_conversion": lambda: True,
        }.items():
            stack.enter_context(patch(name, replacement))
        stack.enter_context(Factories())
        stack.enter_context(Rehearsal())
        yield


def on_cpu(tensor: Tensor) -> Tensor:
    """Return what a test compares of a tensor on the rehearsed GPU."""
    assert isinstance(tensor, OnGpu)
    return tensor.inner


def _check(operation: Any, args: Any, kwargs: Any) -> None:
    """Raise NotOnAGpu where an operation on tensors of the GPU would wait or fail there."""
    others = [each for each in _tensors((args, kwargs)) if not isinstance(each, OnGpu)]
    if operation is aten.copy_.default and others:
        if isinstance(args[0], OnGpu):
            if not (*args, False)[2]:
                _require(ALLOWED_COPIES, "copy_ copies to the GPU and waits")
        else:
            _require_read("copy_")
    elif others and not (torch.Tag.pointwise in operation.tags and all(each.dim() == 0 for each in others)):
        _require({}, f"{operation} mixes tensors of the GPU and of the CPU")
    if torch.Tag.data_dependent_output in operation.tags or _has_a_shape_of_data(operation, args, kwargs):
        _require_read(str(operation))


def _has_a_shape_of_data(operation: Any, args: Any, kwargs: Any) -> bool:
    if operation in (aten.index.Tensor, aten.index_put_.default):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.dynamic_output_shape in operation.tags and kwargs.get("output_size") is None


def _require_read(what: str) -> None:
    _require(ALLOWED_HOST_READS, f"{what} makes the host wait for the GPU")


def _require(allowed: dict[str, str], what: str) -> None:
    place = _place()
    if place and place.partition(", line")[0] not in allowed:
        raise NotOnAGpu(f"{place}: {what}")


def _place() -> str | None:
    """Return module, function and line of the package's code that is running; None if a test's own code is."""
    package, tests = f"{PACKAGE}/", f"{TESTS}/"
    frame = sys._getframe(1)
    while frame := frame.f_back:
        path = frame.f_code.co_filename
        if path.startswith(package):
            name = frame.f_code.co_qualname.partition(".<locals>")[0]
            return f"{path.removeprefix(package)} {name}, line {frame.f_lineno}"
        if path.startswith(tests) and path != __file__:
            return None
    return None


def _call(on_gpu: bool, function: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
    _calls.append(on_gpu)
    try:
        return function(*args, **kwargs)
    finally:
        _calls.pop()


def _take_device(
    function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> tuple[torch.device | None, Any, dict[str, Any]]:
    """Take the device, `cuda` or `cpu`, out of the arguments of a function of PyTorch."""
    if function is Tensor.cpu:
        return CPU, args, kwargs
    is_first = function is Tensor.to and isinstance((*args, None)[1], torch.device | str)
    given = args[1] if is_first else kwargs.get("device")
    if given is None or torch.device(given).type == "meta":
        return None, args, kwargs
    others = {key: value for key, value in kwargs.items() if key != "device"}
    return torch.device(given), [None if each is given else each for each in args], others


def _inner(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, OnGpu) else tensor


def _tensors(value: Any) -> list[Tensor]:
    """Return the tensors in arguments; few calls, for most arguments are no collections."""
    found = []
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, list | tuple | dict):
            found += _tensors(each)
    return found


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to the tensors in a value."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(function, each) for each in value)
    return _map_values(lambda each: _map(function, each), value) if isinstance(value, dict) else value


def _map_values(function: Callable[[Any], Any], values: dict[str, Any]) -> dict[str, Any]:
    return {key: function(value) for key, value in values.items()}
