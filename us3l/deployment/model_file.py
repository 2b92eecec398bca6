"""`model.py` of an exported folder: a file of its own that builds exactly one network with PyTorch alone.

It holds the source of the architecture's classes as they stand in this package, without imports from it. The modules of
a custom network are copied into the folder instead.
"""

import ast
import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from us3l.deployment.config import Config
from us3l.models.backbones import layers
from us3l.models.backbones.registry import BUILT_IN
from us3l.utils.source import is_custom

TEMPLATE = '''\
"""{title}

    from model import load

    network = load()           # reads model.safetensors beside this file
    {output} = network(images)  # images: {images}, float32 in [0, 1]; {output}: {shape}

Needs PyTorch and nothing else. Written by us3l (MIT licence).
"""

{imports}

{source}


class Network(nn.Module):
    """The backbone with the normalization before it{classifier_words}."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = {build}
        self.fc = {classifier}
        self.register_buffer("mean", torch.tensor({mean})[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor({std})[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.backbone((images - self.mean) / self.std))


def load(path: Path = Path(__file__).with_name("model.safetensors")) -> Network:
    """Build the network and read its weights; it is in evaluation mode."""
    weights = read_safetensors(path)
    classifier = {{name: weights.pop(f"fc.{{name}}") for name in ("weight", "bias") if f"fc.{{name}}" in weights}}
    network = Network()
    network.backbone.load_state_dict(weights)
    network.fc.load_state_dict(classifier)
    return network.eval()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name: eight bytes of length, a header in JSON, then the values."""
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    dtypes = {{"F32": torch.float32, "I64": torch.int64}}
    weights = {{}}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        values = torch.frombuffer(bytearray(content[start + first : start + end]), dtype=dtypes[entry["dtype"]])
        weights[name] = values.view(entry["shape"])
    return weights
'''
IMPORTS = {"import json", "import torch", "from pathlib import Path", "from torch import Tensor, nn"}
STAND_INS = {"UserError": "UserError = ValueError  # what us3l raises for a user's mistake\n\n\n"}


def model_file(config: Config, num_features: int) -> str:
    """Return the source of `model.py` for a network of this config."""
    classes = config.classes and len(config.classes)
    imports, source, build = _architecture(config)
    channels, height, width = config.image or (config.in_channels, "H", "W")
    return TEMPLATE.format(
        title=f"{config.architecture} at width {config.width:g}.",
        output="logits" if classes else "features",
        images=f"[B, {channels}, {height}, {width}]",
        shape=f"[B, {classes or num_features}]",
        imports="\n".join(sorted(IMPORTS | imports, key=lambda line: (line.startswith("from"), line))),
        source=source,
        classifier_words=", and the classifier after it" if classes else "",
        build=build,
        classifier=f"nn.Linear({num_features}, {classes})" if classes else "nn.Identity()",
        mean=config.normalize.mean,
        std=config.normalize.std,
    )


def _architecture(config: Config) -> tuple[set[str], str, str]:
    """Return imports, source, and the expression that builds the backbone."""
    name, width = config.architecture, config.width
    if is_custom(name):
        module, _, function = name.partition(":")
        folder = "sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this file"
        return {"import sys"}, f"{folder}\nfrom {module} import {function}  # noqa: E402", f"{function}({width})"
    builder = BUILT_IN[name]
    network_class: Any = builder.func if isinstance(builder, partial) else builder
    imports, source = _sources(layers, import_module(network_class.__module__))
    return imports, source, _call(network_class.__name__, builder, width, config.in_channels)


def _call(name: str, builder: Callable[..., nn.Module], width: float, in_channels: int) -> str:
    given = builder.args if isinstance(builder, partial) else ()
    arguments = [each.__name__ if isinstance(each, type) else repr(each) for each in given]
    return f"{name}({', '.join([*arguments, f'width={width}', f'in_channels={in_channels}'])})"


def _sources(*modules: ModuleType) -> tuple[set[str], str]:
    """Return the imports of modules, without those of this package, and their other statements."""
    imports: set[str] = set()
    statements: list[str] = []
    for module in modules:
        text = inspect.getsource(module)
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("us3l"):
                statements += [STAND_INS[each.name] for each in node.names if each.name in STAND_INS]
            elif isinstance(node, ast.Import | ast.ImportFrom):
                imports.add(ast.unparse(node))
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
                statements.append("\n".join(lines[first - 1 : node.end_lineno]))
    return imports, "\n\n\n".join(statements)


def copied_modules(files: list[Path], folder: Path) -> None:
    """Copy the modules of a custom network into a folder, at the same relative paths."""
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
