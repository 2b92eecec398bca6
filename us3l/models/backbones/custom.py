"""A user's own network: `module:function` in params.yaml, a function of the width in the project's folder."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Size, Tensor, nn
from torch.nn.parameter import UninitializedParameter

from us3l.models.meta import on_meta_device
from us3l.utils.errors import UserError
from us3l.utils.source import source_file


def custom_network(name: str, width: float, image: Sequence[int] | None) -> nn.Module:
    """Build the network of a width by the user's function.

    image: C, H and W of its images; where given, a network without `num_features` gets that attribute.
    Raises UserError where the function is missing, or its networks are not the leading channels of the widest.
    """
    network = _build(name, width)
    _require_leading_channels(f"{name}({width})", _shapes(f"{name}({width})", network), _widest_shapes(name))
    if image and not hasattr(network, "num_features"):
        features = _count_features(name, width, Size(image))
        network.num_features = features  # type: ignore[assignment]  # the stub allows Tensor and Module only
    return network


def require_features(label: str, network: nn.Module, image: Tensor) -> int:
    """Return the number of features of a network, found by running it on two copies of `image` [1, C, H, W].

    label: what messages call the network. Its mode, training or evaluation, is restored.
    Raises UserError where it does not accept the image, or its output is not [B, num_features].
    """
    was_training, shape = network.training, " x ".join(map(str, image.shape[1:]))
    try:
        with torch.no_grad():
            features = network.eval()(torch.cat([image, image]))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{label} does not take an image of {shape}, channels first: {_reason(error)}") from None
    network.train(was_training)
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != 2:
        made = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UserError(f"{label} makes {made} of 2 images; its output must be features [B, F]")
    if getattr(network, "num_features", features.shape[1]) != features.shape[1]:
        what = f"{features.shape[1]} features, but its num_features is {network.num_features}"
        raise UserError(f"{label} makes {what}: correct the attribute, or leave it out")
    return features.shape[1]


@lru_cache(maxsize=256)
def _count_features(name: str, width: float, image: Size) -> int:
    """Count features by a network on the meta device, which draws no random numbers."""
    meta_module = on_meta_device(lambda: _build(name, width))
    label = f"{name}({width}), which has no attribute num_features and is run without storage to count its features,"
    return require_features(label, meta_module, torch.zeros(1, *image, device="meta"))


def _build(name: str, width: float) -> nn.Module:
    try:
        network = _load_function(name)(width)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        device = " without storage, on PyTorch's device meta" if torch.get_default_device().type == "meta" else ""
        raise UserError(f"{name}({width}) cannot be built{device}: {_reason(error)}") from None
    if not isinstance(network, nn.Module):
        raise UserError(f"{name}({width}) returns {type(network).__name__}; it must return a torch.nn.Module")
    return network


@cache
def _load_function(name: str) -> Callable[[float], nn.Module]:
    """Import the function as `python -m` imports a module: from the current directory first."""
    module_name, _, function = name.partition(":")
    file = source_file(name)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UserError(f"backbone {name}: {module_name} cannot be imported: {_reason(error)}") from None
    found = getattr(module, "__file__", None)
    if not found or not Path(found).samefile(file):
        raise UserError(f"backbone {name}: Python has another {module_name}, {found}; rename {file}")
    if not callable(getattr(module, function, None)):
        raise UserError(f"backbone {name}: {file} has no function {function!r}; write one, def {function}(width)")
    return getattr(module, function)


@cache
def _widest_shapes(name: str) -> dict[str, Size]:
    return _shapes(f"{name}(1.0)", on_meta_device(lambda: _build(name, 1.0)))


def _shapes(label: str, network: nn.Module) -> dict[str, Size]:
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            raise UserError(f"{label}: {name} has no shape before it has seen an image; give its layer its sizes")
    return {name: parameter.shape for name, parameter in parameters.items()}


def _require_leading_channels(label: str, shapes: dict[str, Size], widest: dict[str, Size]) -> None:
    """Raise UserError where the parameters are not leading parts of those of width 1.0."""
    for name in sorted(shapes.keys() ^ widest.keys()):
        what = "has a parameter {}, which width 1.0 lacks" if name in shapes else "lacks the parameter {} of width 1.0"
        raise UserError(f"{label} {what.format(name)}: every width must have parameters of the same names")
    for name, shape in shapes.items():
        whole = widest[name]
        if len(shape) != len(whole) or any(part > size for part, size in zip(shape, whole, strict=True)):
            what = f"{name} is {tuple(shape)}, which does not fit into the {tuple(whole)} of width 1.0"
            raise UserError(f"{label}: {what}; a width must have leading channels of the widest network")


def _reason(error: BaseException) -> str:
    """Format an error in one line, with the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())
    return f"{type(error).__name__} in {place.filename}, line {place.lineno}: {message}"
