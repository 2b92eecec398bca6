"""Checkpoints in the layouts of others, with random weights, and what an import makes of them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from us3l.models.backbones.backbone import Backbone
from us3l.models.batch_norms import batch_norms

Tensors = dict[str, Tensor]
Renamed = Callable[[str], str]


@dataclass(frozen=True)
class Model:
    """The tensors of a backbone by the names of others, and by ours as they stand in our checkpoints."""

    theirs: Tensors = field(default_factory=dict)
    ours: Tensors = field(default_factory=dict)

    def add(self, theirs: str, ours: str, value: Tensor) -> None:
        self.theirs[theirs] = self.ours[ours] = value


def noisy(network: nn.Module, seed: int) -> nn.Module:
    """Fill all parameters and statistics with numbers from 0.5 to 1.5."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network


def us3l(backbone: Backbone) -> Model:
    """Names are ours."""
    weights = dict(noisy(backbone.build(1.0), 0).named_parameters())
    return Model({name: each.data for name, each in weights.items()}, {n: each.data for n, each in weights.items()})


def slimclr(backbone: Backbone, widths: Sequence[float]) -> Model:
    """The stem has our names; blocks are counted from 0 through all stages, and the projection is called shortcut."""
    blocks = _blocks(backbone)

    def renamed(name: str) -> str:
        found = re.match(r"(layer\d+\.\d+)\.(.*)", name)
        return f"features.{blocks.index(found[1])}.{found[2]}".replace("downsample", "shortcut") if found else name

    return _switchable(backbone, widths, renamed)


def s_nets(backbone: Backbone, widths: Sequence[float]) -> Model:
    """The stem is features.0; a ResNet's block counts convolutions, BatchNorms and ReLUs. MobileNets have our names.

    All widths of MobileNetV2 share the last BatchNorm, whose channels are those of all widths.
    """
    blocks = _blocks(backbone)

    def renamed(name: str) -> str:
        found = re.fullmatch(r"(?:(layer\d+\.\d+)\.)?(conv|bn)(\d)(.*)", name)
        if found:
            place = 3 * (int(found[3]) - 1) + (found[2] == "bn")
            where = f"features.{blocks.index(found[1]) + 1}.body" if found[1] else "features.0"
            return f"{where}.{place}{found[4]}"
        found = re.match(r"(layer\d+\.\d+)\.downsample(.*)", name)
        return f"features.{blocks.index(found[1]) + 1}.shortcut{found[2]}" if found else name

    return _switchable(backbone, widths, renamed, ("features.18.1",) if "mobilenetv2" in backbone.name else ())


def us_nets(backbone: Backbone, widths: Sequence[float]) -> Model:
    """Names are ours; beside each BatchNorm's weight and bias lie its statistics at some widths."""
    made, shared = us3l(backbone), ("features.18.1",) if "mobilenetv2" in backbone.name else ()
    for number, width in enumerate(widths):
        for path, norm in batch_norms(noisy(backbone.build(width), number), nn.BatchNorm2d).items():
            if path not in shared:
                made.theirs.update({f"{path}.bn.{number}.{name}": each for name, each in norm.named_buffers()})
    return made


def _blocks(backbone: Backbone) -> list[str]:
    names = backbone.build(0.25).state_dict()
    return list(dict.fromkeys(found[0] for name in names if (found := re.match(r"layer\d+\.\d+", name))))


def _switchable(backbone: Backbone, widths: Sequence[float], renamed: Renamed, shared: Sequence[str] = ()) -> Model:
    made, widest = Model(), noisy(backbone.build(1.0), 100)
    own = [path for path in batch_norms(widest, nn.BatchNorm2d) if path not in shared]
    for name, parameter in widest.named_parameters():
        if name.rpartition(".")[0] not in own:
            made.add(renamed(name), name, parameter.data)
    for number, width in enumerate(widths):
        network = noisy(backbone.build(width), number)
        for path in own:
            norm, suffix = network.get_submodule(path), "" if width == 1.0 else f"@{width}"
            for name, parameter in norm.named_parameters():
                made.add(f"{renamed(path)}.bn.{number}.{name}", f"{path}.{name}{suffix}", parameter.data)
            made.theirs.update({f"{renamed(path)}.bn.{number}.{name}": each for name, each in norm.named_buffers()})
    return made


# --- files ----------------------------------------------------------------------------------------------------------


def trained(model: Model, encoder: str, *others: str) -> Tensors:
    """The model of a self-supervised training in parallel: the encoder, and other tensors beside it."""
    beside = {f"module.{name}": torch.zeros(4) for name in others}
    return {f"module.{encoder}{name}": each for name, each in model.theirs.items()} | beside


def of_slimmable_networks(model: Model) -> dict[str, Any]:
    """What the training of S-Nets and US-Nets saves, without its meters."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    classifier = {"classifier.0.weight": torch.zeros(3, 4), "classifier.0.bias": torch.zeros(3)}
    tensors = {f"module.{name}": each for name, each in (model.theirs | classifier).items()}
    return {"model": tensors, "optimizer": optimizer, "last_epoch": 3, "best_val": 0.5}
