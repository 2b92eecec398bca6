"""The measured peak rates of a device, of which the report gives shares."""

import torch
from torch.nn import functional as F

from benchmarks.compare import fewest_seconds
from benchmarks.setting import Setting

SIZES = {"cuda": (8192, torch.bfloat16, 2**30), "cpu": (2048, torch.float32, 2**28)}  # matrix, dtype, bytes copied
IMAGES, CHANNELS, SIDE, KERNEL = 64, 256, 16, 3  # of a convolution that is bound by arithmetic alone


def ceilings(setting: Setting) -> dict[str, float]:
    """Measure floating-point operations per second, and bytes per second read and written by a copy.

    The operations are those of a matrix product or of a convolution, whichever is faster; a CPU uses the setting's
    threads.
    """
    device = setting.device
    size, dtype, copied = SIZES[device.type]
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    x = torch.randn(IMAGES, CHANNELS, SIDE, SIDE, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, KERNEL, KERNEL, device=device).to(dtype, memory_format=torch.channels_last)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = 2 * size**3 / fewest_seconds(lambda: one @ other, setting)
    convolution = (
        2 * x.numel() * weight[0].numel() / fewest_seconds(lambda: F.conv2d(x, weight, padding=KERNEL // 2), setting)
    )
    return {
        "matrix_product": product,
        "convolution": convolution,
        "flops": max(product, convolution),
        "bytes_per_second": 2 * copied / fewest_seconds(lambda: target.copy_(source), setting),
    }
