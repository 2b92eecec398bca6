"""`python -m benchmarks.exports`: every architecture at many widths, exported in every format, run and compared.

Weights are random, and statistics those of random images. Prints Markdown: the largest relative difference of outputs,
the size of the weights against 4 bytes a number, and milliseconds of an image with one thread.
"""

import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from us3l.deployment.config import Config
from us3l.deployment.export import Compared, export
from us3l.deployment.latency import onnx_latency, pytorch_latency
from us3l.deployment.network import Network
from us3l.models.backbones.backbone import Backbone
from us3l.models.batch_norms import batch_norms
from us3l.params.dataset import Normalize
from us3l.pipeline.provenance import hardware

ARCHITECTURES = {
    "small-resnet": 8,
    "cifar-resnet18": 32,
    "resnet18": 224,
    "cifar-resnet50": 32,
    "resnet50": 224,
    "mobilenetv1": 224,
    "mobilenetv2": 224,
    "vit-tiny": 224,
}  # with the height and width of its images
WIDTHS = (1.0, 0.75, 0.6, 0.5, 0.33, 0.25)
CLASSES = 100


def main() -> None:
    """Export all, one after the other."""
    torch.set_num_threads(1)
    print(f"{hardware(None)['cpu']}, one thread, torch {version('torch')}, onnxruntime {version('onnxruntime')}\n")
    titles = ["network", "width", "parameters", "safetensors", "bytes / (4 x numbers)", "onnx", "difference", "pt2"]
    titles += ["difference", "PyTorch, ms", "onnxruntime, ms"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


def rows() -> Iterator[list[str]]:
    """Yield the cells of a row for each architecture and width."""
    for name, side in ARCHITECTURES.items():
        for width in WIDTHS:
            made, images = network(name, width, side, CLASSES), torch.rand(4, 3, side, side)
            with tempfile.TemporaryDirectory() as folder:
                compared = {each.file: each for each in export(made, Path(folder, "out"), ["onnx", "pt2"], images)}
            numbers = sum(each.numel() for each in made.parameters()) + statistics(made)
            weights = compared["model.safetensors"].bytes
            measured = pytorch_latency(made, images[:1]), onnx_latency(made, images[:1])
            times = [f"{each.median:.3g}" if each else "" for each in measured]
            yield [
                *(name, f"{width:g}", f"{sum(each.numel() for each in made.backbone.parameters()):,}"),
                *(f"{weights:,}", f"{weights / (4 * numbers):.3f}"),
                *cells(compared["model.onnx"]),
                *cells(compared["model.pt2"]),
                *times,
            ]


def statistics(made: Network) -> int:
    return sum(2 * norm.num_features for norm in batch_norms(made, nn.BatchNorm2d).values())


def cells(each: Compared) -> tuple[str, str]:
    return f"{each.bytes:,}", each.problem or f"{each.difference:.1g}"


def network(name: str, width: float, side: int, classes: int | None = None, channels: int = 3) -> Network:
    """Build a network with random weights, and statistics of random images [channels, side, side]."""
    torch.manual_seed(0)
    backbone = Backbone(name, channels).build(width)
    for norm in batch_norms(backbone, nn.BatchNorm2d).values():
        norm.momentum = 1.0
    features = backbone.train()(torch.rand(8, channels, side, side)).shape[1]
    normalize = Normalize(mean=[0.4] * channels, std=[0.3] * channels)
    names = [f"class {number}" for number in range(classes)] if classes else None
    config = Config(name, width, channels, normalize, [channels, side, side], classes=names)
    return Network(backbone, config, nn.Linear(features, classes) if classes else None)


if __name__ == "__main__":
    main()
