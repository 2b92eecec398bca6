"""BatchNorm's kernels: in Triton's interpreter on the CPU, compiled for GPUs without one, and on a GPU."""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from gpu import on_gpu
from torch import Tensor
from torch.nn import functional as F

triton = pytest.importorskip("triton", reason="PyTorch comes with Triton on Linux only")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from us3l.models import ghost_batch_norm_triton  # noqa: E402

EPS = 1e-5


class Case(NamedTuple):
    shape: tuple[int, ...]
    groups: int
    affine: bool = True
    shortcut: bool = True
    relu: bool = True
    mean: float = 0.0
    programs: int = ghost_batch_norm_triton.PROGRAMS

    def __str__(self) -> str:
        options = [name for name in ("affine", "shortcut", "relu") if getattr(self, name)]
        return "-".join(["x".join(map(str, self.shape)), f"in{self.groups}", *options])


OPTIONS = [Case((4, 24, 4, 4), 2, *options) for options in product((True, False), repeat=3)]
SHAPES = [
    Case((2, 8, 32, 32), 1),
    Case((16, 64, 4, 4), 8),
    Case((6, 200, 4, 4), 2),  # neither rows nor channels fill the last tile
    Case((8, 64, 1, 1), 2),
    Case((6, 24), 2, shortcut=False),
    Case((6, 72), 1, affine=False, shortcut=False, relu=False),
    Case((6, 5, 3, 3), 2),  # channels of any number
    Case((8, 8, 15, 15), 2, programs=4),  # several tiles to a program, and not all of the last
    Case((8, 8, 15, 15), 2, mean=1000.0, programs=4),  # the mean of the squares would drown the variance
]


def plain(x: Tensor, weight: Tensor | None, bias: Tensor | None, case: Case, shortcut: Tensor | None) -> Tensor:
    y = torch.cat([F.batch_norm(each, None, None, weight, bias, True, 0, EPS) for each in x.chunk(case.groups)])
    y = y if shortcut is None else y + shortcut
    return y.relu() if case.relu else y


def fused(x: Tensor, weight: Tensor | None, bias: Tensor | None, case: Case, shortcut: Tensor | None) -> Tensor:
    return ghost_batch_norm_triton.ghost_batch_norm(x, weight, bias, case.groups, EPS, shortcut, case.relu)


def made(case: Case, dtype: torch.dtype, device: str) -> tuple[list[Tensor | None], Tensor]:
    """Return x, weight, bias and shortcut, or None, and the gradient of the result, not channels last."""
    torch.manual_seed(0)
    x, shortcut, dy = (torch.randn(case.shape, device=device).to(dtype) for _ in range(3))
    weight, bias = 1 + torch.randn(2, case.shape[1], device=device) / 2
    last = torch.channels_last if len(case.shape) == 4 else torch.contiguous_format
    x, shortcut = (x + case.mean).contiguous(memory_format=last), shortcut.contiguous(memory_format=last)
    affine = [weight, bias] if case.affine else [None, None]
    return [x, *affine, shortcut if case.shortcut else None], dy


def run(function: Callable[..., Tensor], case: Case, inputs: list[Tensor | None], dy: Tensor) -> list[Tensor]:
    """Return the result and the gradients of all inputs that are not None."""
    x, weight, bias, shortcut = [None if each is None else each.detach().requires_grad_() for each in inputs]
    y = function(x, weight, bias, case, shortcut)
    there = [each for each in (x, weight, bias, shortcut) if each is not None]
    return [y.detach(), *torch.autograd.grad(y, there, dy)]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [((one - other).abs().max() / other.abs().max()).item() for one, other in zip(found, exact, strict=True)]


def check(case: Case, dtype: torch.dtype, device: str) -> None:
    """Require float32 to be as exact as PyTorch, bfloat16 the exact result, rounded once (in the interpreter, down)."""
    inputs, dy = made(case, dtype, device)
    exact = run(plain, case, [None if each is None else each.double() for each in inputs], dy.double())
    with patch.object(ghost_batch_norm_triton, "PROGRAMS", case.programs):
        found = run(fused, case, inputs, dy)
    assert [each.dtype for each in found] == [dtype] + [each.dtype for each in inputs if each is not None]
    if dtype == torch.float32:
        limits = [1e-6 + 3 * error for error in errors(run(plain, case, inputs, dy), exact)]
        assert all(error <= limit for error, limit in zip(errors(found, exact), limits, strict=True))
    else:
        rounding = 2**-7 if device == "cpu" else 2**-8
        for one, other in zip(found, exact, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=rounding, atol=1e-5 * other.abs().max().item())


def let_tensors_be_bounds() -> None:
    """Let `range` take tensors: Triton 3.6's interpreter relies on conversions that NumPy 2.4 lacks."""
    from triton.runtime import interpreter

    prepare = interpreter._patch_lang_tensor

    def prepare_more(tensor: type, scope: Any) -> None:
        prepare(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = prepare_more


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Start a process that interprets kernels, which Triton decides when it is imported."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TRITON_INTERPRET", "1")
            process.submit(let_tensors_be_bounds).result()
        yield process


@pytest.mark.parametrize("case", OPTIONS + SHAPES, ids=str)
def test_kernels_compute_what_batch_norms_of_the_groups_do(case: Case, interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(check, case, torch.float32, "cpu").result()


@pytest.mark.parametrize("case", OPTIONS, ids=str)
def test_bfloat16_is_rounded_once(case: Case, interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(check, case, torch.bfloat16, "cpu").result()


def not_a_number_passes(device: str) -> None:
    case = Case((4, 8, 2, 2), 2, shortcut=False)
    (x, weight, bias, _), dy = made(case, torch.float32, device)
    x[0, 3, 1, 1] = torch.nan
    y, dx, *_ = run(fused, case, [x, weight, bias, None], dy)
    for each in (y, dx):
        assert each[:2, 3].isnan().all() and each.isnan().sum() == 2 * 4


def test_what_is_not_a_number_does_not_vanish_in_the_relu(interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(not_a_number_passes, "cpu").result()


def any_layout_is_read() -> None:
    case = Case((4, 8, 2, 2), 2)
    inputs, dy = made(case, torch.float32, "cpu")
    expected = run(fused, case, inputs, torch.ones_like(dy))
    transposed = [None if each is None else each.contiguous() for each in inputs]
    for one, other in zip(run(fused, case, transposed, torch.ones(1).expand_as(dy)), expected, strict=True):
        assert torch.equal(one, other)


def test_channels_that_are_not_last_make_no_difference(interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(any_layout_is_read).result()


def results_change_in_place(device: str) -> None:
    case = Case((6, 24), 2, shortcut=False, relu=False)
    inputs, dy = made(case, torch.float32, device)
    changed = run(lambda *given: fused(*given).relu_(), case, inputs, dy)
    for one, other in zip(changed, run(lambda *given: plain(*given).relu(), case, inputs, dy), strict=True):
        torch.testing.assert_close(one, other)


def test_what_follows_may_change_the_result_in_place(interpreter: ProcessPoolExecutor) -> None:
    interpreter.submit(results_change_in_place, "cpu").result()


@on_gpu
def test_results_may_be_changed_in_place_on_a_gpu() -> None:
    results_change_in_place("cuda")


def test_groups_of_unequal_sizes_are_refused() -> None:
    with pytest.raises(RuntimeError, match="multiply"):
        ghost_batch_norm_triton.ghost_batch_norm(torch.zeros(3, 8, 2, 2), None, None, 2, EPS)


class Absent(NamedTuple):
    """The driver of a missing GPU, for which kernels can be compiled."""

    architecture: int

    def get_current_device(self) -> int:
        return self.architecture  # a number of its own, since kernels are kept by it

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Collect the kernels that launches compile, without running them."""
    kernels = []
    launch = JITFunction.run

    def compile_only(kernel: JITFunction, *arguments: Any, warmup: bool, **options: Any) -> None:
        kernels.append(launch(kernel, *arguments, warmup=True, **options))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", compile_only)
    return kernels


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_kernel_compiles_and_moves_16_bytes_at_once(
    dtype: torch.dtype, architecture: int, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton.runtime.driver, "_active", Absent(architecture))
    for case in OPTIONS:
        run(fused, case, *made(case, dtype, "cpu"))
    kernels = {id(kernel): kernel for kernel in compiled}.values()
    variants = {
        "_partial_statistics": 1,
        "_merge_statistics": 1,
        "_normalize": 8,
        "_partial_gradient_sums": 6,
        "_input_gradient": 4,
    }
    assert Counter(kernel.name for kernel in kernels) == variants
    for kernel in kernels:
        assert kernel.asm["cubin"]
        if kernel.name != "_merge_statistics":  # which reads little
            assert "global.v4.b32" in kernel.asm["ptx"] and "global.b16" not in kernel.asm["ptx"]


def test_widths_share_kernels(compiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.runtime.driver, "_active", Absent(90))
    for channels in (40, 72, 200):
        run(fused, case := Case((4, channels, 4, 4), 2), *made(case, torch.bfloat16, "cpu"))
    assert len(compiled) == 15 and len({id(kernel) for kernel in compiled}) == 5


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [*OPTIONS, *SHAPES, Case((256, 200, 32, 32), 2), Case((1024, 2048), 8)], ids=str)
def test_a_gpu_computes_what_batch_norms_of_the_groups_do(case: Case, dtype: torch.dtype) -> None:
    check(case, dtype, "cuda")


@on_gpu
def test_what_is_not_a_number_does_not_vanish_on_a_gpu() -> None:
    not_a_number_passes("cuda")


@on_gpu
def test_a_cuda_graph_has_the_same_bits_and_so_has_autocast() -> None:
    case = Case((16, 64, 8, 8), 4)
    inputs, dy = made(case, torch.bfloat16, "cuda")
    expected = run(fused, case, inputs, dy)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = run(fused, case, inputs, dy)
    graph.replay()
    with torch.autocast("cuda", torch.bfloat16):
        cast = run(fused, case, inputs, dy)
    for one, two, three in zip(expected, replayed, cast, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
