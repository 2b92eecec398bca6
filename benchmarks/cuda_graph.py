"""A training step against the same step recorded as a CUDA graph, which the GPU replays without the host."""

from collections.abc import Callable, Iterator

import torch

from benchmarks import builders
from benchmarks.compare import OURS, Case, Side
from benchmarks.fast_paths import case, step
from benchmarks.setting import Setting

WARM_UP = 3  # steps before the recording: kernels are compiled, and what an epoch keeps is made


def cases(setting: Setting) -> Iterator[Case]:
    shards = builders.shards(builders.two_views(setting), setting.run.batch.shards)
    graphed = Side(_recorded(step(setting, shards))) if setting.device.type == "cuda" else None
    sides = {OURS: Side(step(setting, shards)), "CUDA graph": graphed}
    yield case(setting, "launched by the host", sides, "the graph has one learning rate and one choice of widths")


def _recorded(turn: Callable[[], object]) -> Callable[[], None]:
    """Record a turn after the warm-up, which a graph needs on another stream; return its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            turn()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        turn()
    return graph.replay
