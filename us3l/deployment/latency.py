"""How long a network takes on this machine, in PyTorch with its BatchNorms folded, and in onnxruntime."""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from us3l.deployment.formats import write_onnx
from us3l.deployment.network import Network

WARM_UP, FEWEST, SECONDS = 5, 20, 1.0  # calls before the measurement, and calls and seconds of it at least


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a call: the median, and the 5th and 95th percentile."""

    median: float
    p5: float
    p95: float
    calls: int


def time_calls(call: Callable[[], object]) -> Latency:
    """Call repeatedly after a warm-up, for a second at least."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    while len(times) < FEWEST or sum(times) < SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    p5, median, p95 = (1000 * float(value) for value in np.percentile(times, (5, 50, 95)))
    return Latency(median, p5, p95, len(times))


@torch.inference_mode()
def pytorch_latency(network: Network, images: Tensor) -> Latency:
    """Time the folded network on images [B, C, H, W], with PyTorch's present number of threads."""
    folded, laid_out = network.fold(), images.contiguous(memory_format=torch.channels_last)
    return time_calls(lambda: folded(laid_out))


def onnx_latency(network: Network, images: Tensor) -> Latency | None:
    """Time onnxruntime on images [B, C, H, W], with as many threads as PyTorch has; None where it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_onnx(network, images[0], path)
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}
    return time_calls(lambda: session.run(None, feed))
