"""`us3l slices`: what the network of each width costs on this machine, and how accurate it is."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from us3l.deployment.formats import safetensors_of
from us3l.deployment.latency import Latency, onnx_latency, pytorch_latency
from us3l.deployment.network import Network
from us3l.models.complexity import cost
from us3l.pipeline.deploy import DeployedRun
from us3l.pipeline.listing import UNLIMITED
from us3l.pipeline.provenance import hardware, versions
from us3l.utils.atomic import atomic_write

BATCHES = (1, 64)


@dataclass(frozen=True)
class Slice:
    """A network of one width: channels of its feature maps, costs with a classifier, and accuracy where evaluated.

    parameters are the backbone's, macs those of an image; bytes are of model.safetensors; top1 and interval: percent.
    """

    width: float
    channels: list[int]
    parameters: int
    macs: int
    bytes: int
    top1: float | None
    interval: list[float] | None
    latency_ms: dict[str, Latency]


def measure(deployed: DeployedRun, width: float, batches: Iterable[int] = BATCHES) -> Slice:
    """Count and time the network of a width, trained or not listed, with PyTorch's present number of threads."""
    network, image = deployed.untrained(width), deployed.test_images[:1]
    accuracy = network.config.facts.get("accuracy", {})
    return Slice(
        width,
        _channels(network, image),
        **cost(network.backbone, (image - network.mean) / network.std, deployed.classes),
        bytes=len(safetensors_of(network)),
        top1=accuracy.get("top1"),
        interval=accuracy.get("interval"),
        latency_ms=_latencies(network, image, batches),
    )


@torch.no_grad()
def _channels(network: Network, image: torch.Tensor) -> list[int]:
    if not hasattr(network.backbone, "feature_maps"):
        return []
    return [each.shape[1] for each in network.features(image).values()]


def _latencies(network: Network, image: torch.Tensor, batches: Iterable[int]) -> dict[str, Latency]:
    found = {}
    for batch in batches:
        images = image.repeat(batch, 1, 1, 1)
        found[f"pytorch_batch{batch}"] = pytorch_latency(network, images)
        if timed := onnx_latency(network, images):
            found[f"onnxruntime_batch{batch}"] = timed
    return found


def show_slices(deployed: DeployedRun, widths: Sequence[float], folder: Path | None) -> None:
    """Measure the networks of widths, by default the study's; print a table, write slices.json and slices.csv."""
    run = deployed.run
    slices = [measure(deployed, width) for width in sorted(widths or run.widths, reverse=True)]
    Console(width=UNLIMITED, highlight=False).print(_table(slices))
    threads = torch.get_num_threads()
    cpu, packages = hardware(None)["cpu"], " and ".join(f"{name} {version(name)}" for name in _timed_packages())
    print(f"Milliseconds for 1 and 64 images: medians, {threads} thread{'s' * (threads > 1)} of {cpu}, {packages}.")
    sizes = [each.bytes / 1e6 for each in slices]
    together = f"{len(slices)} files of {three_digits(sum(sizes))} MB together"
    print(f"One file of {three_digits(max(sizes))} MB instead of {together}.")
    parent = folder or deployed.folder
    _write(slices, parent)
    print(f"Written: {parent / 'slices.json'} and slices.csv")


def _timed_packages() -> list[str]:
    return ["torch", *(["onnxruntime"] if find_spec("onnxruntime") else [])]


def _table(slices: Sequence[Slice]) -> Table:
    """Lay out a row for each width; the milliseconds of PyTorch are with BatchNorms folded."""
    timed = list(slices[0].latency_ms)
    titles = [name.replace("_batch", " ") for name in timed]
    table = Table("width", "channels", "parameters", "MACs", "MB", "top-1", *titles)
    for each in slices:
        counts = [f"{three_digits(count / 1e6)}M" for count in (each.parameters, each.macs)]
        latencies = [three_digits(each.latency_ms[name].median) for name in timed]
        channels, size = " ".join(map(str, each.channels)), three_digits(each.bytes / 1e6)
        table.add_row(f"{each.width:g}x", channels, *counts, size, accuracy_text(each), *latencies)
    return table


def three_digits(value: float) -> str:
    """Format a number by its first three digits; from 1,000 on by all before the point."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def accuracy_text(each: Slice) -> str:
    """Format top-1 with its 95% interval over test images."""
    if each.top1 is None or each.interval is None:
        return "not evaluated"
    return f"{each.top1:.1f} [{each.interval[0]:.1f}, {each.interval[1]:.1f}]"


def _write(slices: Sequence[Slice], folder: Path) -> None:
    about: dict[str, Any] = {"hardware": hardware(torch.device("cpu")), "versions": versions()}
    content = json.dumps({**about, "slices": [asdict(each) for each in slices]}, indent=2)
    with atomic_write(folder / "slices.json") as temporary:
        temporary.write_text(f"{content}\n", encoding="utf-8")
    rows = [
        {key: value for key, value in asdict(each).items() if key not in ("latency_ms", "interval", "channels")}
        | {f"{name}_ms": latency.median for name, latency in each.latency_ms.items()}
        for each in slices
    ]
    with atomic_write(folder / "slices.csv") as temporary:
        temporary.write_text(pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"), encoding="utf-8")
