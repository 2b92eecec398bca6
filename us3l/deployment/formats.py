"""The files that hold a network's weights, or its whole graph, in an exported folder."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from us3l.deployment.network import Network
from us3l.utils.extras import require_extra

IMAGES = "images"  # name of a graph's input
Write = Callable[[Network, Tensor, Path], None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' talk about themselves."""
    with warnings.catch_warnings(action="ignore"):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def write_safetensors(network: Network, example: Tensor, path: Path) -> None:
    """Write the weights by the names that torchvision and timm have for them, the classifier as `fc`."""
    path.write_bytes(safetensors_of(network))


def safetensors_of(network: Network) -> bytes:
    """Return the content of model.safetensors."""
    tensors = dict(network.backbone.state_dict())
    if network.classifier is not None:
        tensors |= {f"fc.{name}": value for name, value in network.classifier.state_dict().items()}
    return save({name: value.contiguous() for name, value in tensors.items()}, {"format": "pt"})


@_quiet()
def write_pt2(network: Network, example: Tensor, path: Path) -> None:
    """Write the program of `torch.export`, for batches of any size."""
    torch.export.save(_program(network, example), path)


@_quiet()
def write_onnx(network: Network, example: Tensor, path: Path) -> None:
    """Write ONNX, for batches of any size. Raises UserError where a package of the extra `export` is missing."""
    require_extra("export", "the format onnx")
    output = "features" if network.classifier is None else "logits"
    exported = torch.onnx.export(
        _program(network, example), input_names=[IMAGES], output_names=[output], dynamo=True, verbose=False
    )
    assert exported is not None  # it is None only where a file is given
    exported.save(path)


FORMATS: dict[str, Write] = {  # of the file model.NAME
    "safetensors": write_safetensors,
    "onnx": write_onnx,
    "pt2": write_pt2,
}


def _program(network: Network, example: Tensor) -> torch.export.ExportedProgram:
    """Trace a network; example: [C, H, W]. A batch of one would be taken for a size that never changes."""
    batch = torch.stack([example, example])
    return torch.export.export(network, (batch,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
