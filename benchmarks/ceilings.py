"""What a device does at most, measured: the ceilings that shares are of."""

import torch
from torch.nn import functional as F

from benchmarks.compare import best
from benchmarks.setting import Setting

SIZES = {"cuda": (8192, torch.bfloat16, 2**30), "cpu": (2048, torch.float32, 2**28)}  # matrix, its type, bytes copied
IMAGES, CHANNELS, SIDE, KERNEL = 64, 256, 16, 3  # of a convolution that arithmetic alone bounds


def ceilings(setting: Setting) -> dict[str, float]:
    """Floating-point operations a second, of a matrix product or of a convolution, whichever does more of them.

    Bytes a second, read and written, of a copy. On a CPU of as many threads as the setting has.
    """
    device = setting.device
    size, dtype, copied = SIZES[device.type]
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    x = torch.randn(IMAGES, CHANNELS, SIDE, SIDE, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, KERNEL, KERNEL, device=device).to(dtype, memory_format=torch.channels_last)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = 2 * size**3 / best(lambda: one @ other, setting)
    convolution = 2 * x.numel() * weight[0].numel() / best(lambda: F.conv2d(x, weight, padding=KERNEL // 2), setting)
    return {
        "matrix_product": product,
        "convolution": convolution,
        "flops": max(product, convolution),
        "bytes_per_second": 2 * copied / best(lambda: target.copy_(source), setting),
    }
