"""What a device does at most, measured: the ceilings that shares are of."""

import torch

from us3l.bench.compare import best
from us3l.bench.setting import Setting

SIZES = {"cuda": (8192, torch.bfloat16, 2**30), "cpu": (2048, torch.float32, 2**28)}  # matrix, its type, bytes copied


def ceilings(setting: Setting) -> dict[str, float]:
    """Floating-point operations a second of a product of square matrices, bytes a second, read and written, of a copy.

    On a CPU with `threads` threads.
    """
    device = setting.device
    size, dtype, copied = SIZES[device.type]
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "flops": 2 * size**3 / best(lambda: one @ other, setting),
        "bytes_per_second": 2 * copied / best(lambda: target.copy_(source), setting),
    }
