"""BatchNorm over each group of images, with shortcut and ReLU, fused for GPUs.

"Ghost" BatchNorm is that of Hoffer et al. 2017 (arXiv 1705.08741). Channels last, a layer's input is one matrix of rows
for each group: [groups, M, C], where M is images of a group times pixels. A kernel's program reads a chunk of a group's
rows, for up to 64 channels, tile by tile. Chunks and tiles depend on the shape alone, and their sums are added up in a
fixed order, so that the same input gives the same result to the last bit.

Reads and writes of a tensor of the layer's size, counted from the code, forward + backward:

                                here           batch_norm, add and relu, one after another
    BatchNorm                    8 = 3 + 5      8 = 3 + 5
    BatchNorm, ReLU              8 = 3 + 5     13 = 5 + 8
    BatchNorm, shortcut, ReLU   11 = 4 + 7     16 = 8 + 8

The ReLU's mask is computed from x again, or from the result where a shortcut exists. For batch_norm, splitting the
batch into groups and concatenating them costs 2 + 2 more.

Numbers of images and channels are arguments, not constants: all widths share a few compilations. A kernel is compiled
at its first call, so warm up before capturing a CUDA graph; nothing else synchronizes with the GPU.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

PROGRAMS = 2048  # to aim for: several for each multiprocessor of a large GPU
TILE = 2048  # elements of the matrix that a program holds at once
CHANNELS = 64  # of a tile at most: a row of them in bfloat16 is one cache line of 128 bytes
CHUNKS = 256  # at most, of the rows of a group


def ghost_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    eps: float,
    shortcut: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Compute relu?((x - mean) / sqrt(variance + eps) * weight + bias [+ shortcut]) with the statistics of each group.

    x: [N, C, H, W], copied unless channels last, or [N, C]; float32 or bfloat16, on a GPU. Group g of n = N / groups
    images is x[g * n : (g + 1) * n]; the variance is the biased one. weight, bias: [C] float32, both or neither.
    shortcut: like x. Statistics and arithmetic are float32; the result, channels last, is rounded once, to x's dtype.
    Raises RuntimeError where `groups` does not divide N.
    """
    return _GhostBatchNorm.apply(x, weight, bias, groups, eps, shortcut, relu)


class _GhostBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        groups: int,
        eps: float,
        shortcut: Tensor | None,
        relu: bool,
    ) -> Tensor:
        rows = _rows(x, groups)
        grid, sizes = _tiling(*rows.shape)
        mean, rstd = _statistics(rows, eps)
        y = torch.empty_like(rows)
        shortcut_rows = None if shortcut is None else _rows(shortcut, groups)
        _normalize[grid](rows, shortcut_rows, y, mean, rstd, weight, bias, RELU=relu, **sizes)
        ctx.groups, ctx.relu, ctx.has_shortcut = groups, relu, shortcut is not None
        ctx.save_for_backward(x, weight, bias, mean, rstd, y if relu and ctx.has_shortcut else None)
        return _images(y, x).detach()  # autograd forbids in-place changes, as by a ReLU, of what it takes for a view

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd, y = ctx.saved_tensors
        normalized = _rows(x, ctx.groups), mean, rstd, weight, bias
        dy, mask = _rows(dy, ctx.groups), ctx.relu
        sums, masked = _gradient_sums(*normalized, y, dy, mask)
        if masked is not None:
            dy, mask = masked, False
        dx = torch.empty_like(normalized[0])
        grid, sizes = _tiling(*dx.shape)
        _input_gradient[grid](*normalized, dy, *sums, dx, RELU=mask, **sizes)
        dbias, dweight = (None, None) if weight is None else sums.sum(1)
        dshortcut = _images(dy, x) if ctx.has_shortcut else None
        return _images(dx, x), dweight, dbias, None, None, dshortcut, None


def _rows(x: Tensor, groups: int) -> Tensor:
    """Reshape [N, C, H, W] or [N, C] to [groups, rows of a group, C]: a view where x is channels last."""
    return x.unflatten(0, (groups, -1)).movedim(2, -1).reshape(groups, -1, x.shape[1]).contiguous()


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """Reshape [groups, rows of a group, C] to the shape of `like`."""
    return rows.view(like.movedim(1, -1).shape).movedim(-1, 1)


def _tiling(groups: int, M: int, C: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Return the grid [chunks of rows, blocks of channels, groups] for matrices [groups, M, C], and kernels' sizes."""
    block_c = min(triton.next_power_of_2(C), CHANNELS)
    block_m, blocks = TILE // block_c, triton.cdiv(C, block_c)
    tiles = triton.cdiv(M, block_m)
    chunks = min(tiles, CHUNKS, max(1, PROGRAMS // (blocks * groups)))
    chunk_rows = triton.cdiv(tiles, chunks) * block_m
    sizes = {
        "M": M,
        "C": C,
        "chunk_rows": chunk_rows,
        "DIVISOR": math.gcd(C, 8),
        "BLOCK_M": block_m,
        "BLOCK_C": block_c,
    }
    return (triton.cdiv(M, chunk_rows), blocks, groups), sizes


def _statistics(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Compute mean and 1 / sqrt(variance + eps) of each group's channels: [groups, C] float32 each."""
    groups, M, C = rows.shape
    (chunks, blocks, _), sizes = _tiling(groups, M, C)
    parts = torch.empty(2, groups, chunks, C, dtype=torch.float32, device=rows.device)
    mean, rstd = torch.empty(2, groups, C, dtype=torch.float32, device=rows.device)
    _partial_statistics[chunks, blocks, groups](rows, *parts, **sizes)
    _merge_statistics[triton.cdiv(C, 16), groups](
        *parts, mean, rstd, eps, chunks, M, C, sizes["chunk_rows"], CHUNKS, 16
    )
    return mean, rstd


def _gradient_sums(
    rows: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor | None,
    dy: Tensor,
    relu: bool,
) -> tuple[Tensor, Tensor | None]:
    """Sum the gradient at the ReLU's input, and its product with the normalized x, over rows: [2, groups, C].

    Given y, also return the gradient at the ReLU's input: the shortcut's gradient.
    """
    groups, M, C = rows.shape
    grid, sizes = _tiling(groups, M, C)
    parts = torch.empty(2, groups, grid[0], C, dtype=torch.float32, device=rows.device)
    masked = None if y is None else torch.empty_like(dy)
    _partial_gradient_sums[grid](rows, mean, rstd, weight, bias, y, dy, *parts, masked, RELU=relu, **sizes)
    return parts.sum(2), masked


@triton.jit
def _multiple_of(C, DIVISOR: tl.constexpr):
    """Return C, now known to the compiler as a multiple of DIVISOR, so that it reads and writes 16 bytes at once."""
    return C // DIVISOR * DIVISOR


@triton.jit
def _channels(C, BLOCK_C: tl.constexpr):
    """Return the channels of this program: [1, BLOCK_C]."""
    return tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]


@triton.jit
def _tile(first, channel, M, C, BLOCK_M: tl.constexpr):
    """Return a tile's offsets in the matrix, from the group's row `first` on, with masks of offsets and rows inside."""
    row = first + tl.arange(0, BLOCK_M)[:, None]
    offset = (tl.program_id(2).to(tl.int64) * M + row) * C + channel
    return offset, (row < M) & (channel < C), row < M


@triton.jit
def _chunk_end(chunk_rows, M):
    return tl.minimum((tl.program_id(0) + 1) * chunk_rows, M)


@triton.jit
def _load(matrix, offset, inside):
    return tl.load(matrix + offset, inside, 0.0).to(tl.float32)


@triton.jit
def _load_channels(mean, rstd, weight, bias, channel, C):
    """Load [1, BLOCK_C] float32 each; a missing weight is 1, a missing bias 0."""
    own, inside = tl.program_id(2) * C + channel, channel < C
    if weight is None:
        scale, shift = tl.full(channel.shape, 1.0, tl.float32), tl.full(channel.shape, 0.0, tl.float32)
    else:
        scale, shift = _load(weight, channel, inside), _load(bias, channel, inside)
    return _load(mean, own, inside), _load(rstd, own, inside), scale, shift


@triton.jit
def _merged_parts(count, mean, m2):
    """Merge parts [parts, channels] to their mean and the sum of squared distances from it (Chan et al. 1979)."""
    whole = tl.div_rn(tl.sum(count * mean, 0), tl.sum(count, 0))
    distance = mean - whole[None, :]
    return whole, tl.sum(m2 + count * distance * distance, 0)


@triton.jit
def _partial_statistics(
    x, means, m2s, M, C, chunk_rows, DIVISOR: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Compute mean and squared distances of a chunk, updating those of each row of the tile (Welford 1962)."""
    C = _multiple_of(C, DIVISOR)
    channel = _channels(C, BLOCK_C)
    count = tl.zeros([BLOCK_M, 1], tl.float32)
    mean, m2 = tl.zeros([BLOCK_M, BLOCK_C], tl.float32), tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for first in range(tl.program_id(0) * chunk_rows, _chunk_end(chunk_rows, M), BLOCK_M):
        offset, inside, row_inside = _tile(first, channel, M, C, BLOCK_M)
        value = _load(x, offset, inside)
        count += row_inside.to(tl.float32)
        distance = tl.where(inside, value - mean, 0.0)
        mean += distance * (1.0 / tl.maximum(count, 1.0))
        m2 += distance * (value - mean)
    whole_mean, whole_m2 = _merged_parts(count, mean, m2)
    own = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * C + channel
    tl.store(means + own, whole_mean[None, :], channel < C)
    tl.store(m2s + own, whole_m2[None, :], channel < C)


@triton.jit
def _merge_statistics(
    means, m2s, mean, rstd, eps, chunks, M, C, chunk_rows, CHUNKS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Compute a group's mean and 1 / sqrt(variance + eps) from the statistics of its chunks [groups, chunks, C]."""
    group, index = tl.program_id(1), tl.arange(0, CHUNKS)[:, None]
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    count = tl.minimum(tl.maximum(M - index * chunk_rows, 0), chunk_rows).to(tl.float32)
    offset, inside = (group * chunks + index) * C + channel[None, :], (index < chunks) & (channel[None, :] < C)
    whole_mean, whole_m2 = _merged_parts(count, _load(means, offset, inside), _load(m2s, offset, inside))
    tl.store(mean + group * C + channel, whole_mean, channel < C)
    tl.store(rstd + group * C + channel, 1.0 / tl.sqrt_rn(whole_m2 / M + eps), channel < C)


@triton.jit
def _normalize(
    x,
    shortcut,
    y,
    mean,
    rstd,
    weight,
    bias,
    M,
    C,
    chunk_rows,
    RELU: tl.constexpr,
    DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    C = _multiple_of(C, DIVISOR)
    channel = _channels(C, BLOCK_C)
    mean, rstd, weight, bias = _load_channels(mean, rstd, weight, bias, channel, C)
    for first in range(tl.program_id(0) * chunk_rows, _chunk_end(chunk_rows, M), BLOCK_M):
        offset, inside, _ = _tile(first, channel, M, C, BLOCK_M)
        value = (_load(x, offset, inside) - mean) * rstd * weight + bias
        if shortcut is not None:
            value += _load(shortcut, offset, inside)
        if RELU:
            value = tl.where(value <= 0, 0.0, value)  # unlike a maximum, keeps NaN
        tl.store(y + offset, value, inside)


@triton.jit
def _partial_gradient_sums(
    x,
    mean,
    rstd,
    weight,
    bias,
    y,
    dy,
    sums,
    sums_of_products,
    masked,
    M,
    C,
    chunk_rows,
    RELU: tl.constexpr,
    DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute the sums of `_gradient_sums` over a chunk and, given y, the gradient at the ReLU's input."""
    C = _multiple_of(C, DIVISOR)
    channel = _channels(C, BLOCK_C)
    mean, rstd, weight, bias = _load_channels(mean, rstd, weight, bias, channel, C)
    total, products = tl.zeros([BLOCK_M, BLOCK_C], tl.float32), tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for first in range(tl.program_id(0) * chunk_rows, _chunk_end(chunk_rows, M), BLOCK_M):
        offset, inside, _ = _tile(first, channel, M, C, BLOCK_M)
        normalized, gradient = (_load(x, offset, inside) - mean) * rstd, _load(dy, offset, inside)
        if y is not None:
            gradient = tl.where(_load(y, offset, inside) <= 0, 0.0, gradient)
            tl.store(masked + offset, gradient, inside)
        elif RELU:
            gradient = tl.where(normalized * weight + bias <= 0, 0.0, gradient)
        total += gradient
        products += gradient * normalized
    own = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * C + channel
    tl.store(sums + own, tl.sum(total, 0)[None, :], channel < C)
    tl.store(sums_of_products + own, tl.sum(products, 0)[None, :], channel < C)


@triton.jit
def _input_gradient(
    x,
    mean,
    rstd,
    weight,
    bias,
    dy,
    sums,
    sums_of_products,
    dx,
    M,
    C,
    chunk_rows,
    RELU: tl.constexpr,
    DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    C = _multiple_of(C, DIVISOR)
    channel = _channels(C, BLOCK_C)
    mean, rstd, weight, bias = _load_channels(mean, rstd, weight, bias, channel, C)
    own = tl.program_id(2) * C + channel
    average, product = _load(sums, own, channel < C) / M, _load(sums_of_products, own, channel < C) / M
    for first in range(tl.program_id(0) * chunk_rows, _chunk_end(chunk_rows, M), BLOCK_M):
        offset, inside, _ = _tile(first, channel, M, C, BLOCK_M)
        normalized, gradient = (_load(x, offset, inside) - mean) * rstd, _load(dy, offset, inside)
        if RELU:
            gradient = tl.where(normalized * weight + bias <= 0, 0.0, gradient)
        tl.store(dx + offset, rstd * weight * (gradient - average - normalized * product), inside)
