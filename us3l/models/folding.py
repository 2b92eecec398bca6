"""Faster inference: BatchNorms folded into the convolutions before them, and channels-last layout.

A BatchNorm in evaluation mode scales and shifts each channel, which the convolution before it can do itself (Jacob
et al. 2018, arXiv 1712.05877, section 3.2).
"""

from collections import Counter
from copy import deepcopy

import torch
from torch import nn
from torch.fx import Node, Tracer
from torch.nn.utils.fusion import fuse_conv_bn_eval

from us3l.models.backbones.layers import AddReLU, NormReLU
from us3l.models.backbones.mobilenet import DepthwiseSeparable, InvertedResidual, MobileNetV1, MobileNetV2
from us3l.models.backbones.resnet import BasicBlock, Bottleneck, ResNet

# Classes whose code does nothing with a layer but call it: those that are traced.
NETWORKS = (ResNet, MobileNetV1, MobileNetV2)
TRACED = (*NETWORKS, BasicBlock, Bottleneck, DepthwiseSeparable, InvertedResidual, nn.Sequential)

# What replaces a folded BatchNorm, by its class; other classes are not folded.
REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: nn.Identity, NormReLU: AddReLU}


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a ResNet or MobileNet in evaluation mode with its BatchNorms folded: [B, C, H, W] to [B, F].

    A BatchNorm is folded where it alone reads the output of a convolution, and both run once. Networks of other
    classes, whose code may do anything with its layers, are not copied: they are only converted to channels last.
    """
    if type(network) in NETWORKS:
        network = deepcopy(network).eval()
        for convolution_path, norm_path in _foldable_pairs(network):
            convolution, norm = network.get_submodule(convolution_path), network.get_submodule(norm_path)
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            network.set_submodule(convolution_path, fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(norm_path, REPLACEMENTS[type(norm)]())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks this overload


def _foldable_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Return the paths of each convolution and of the BatchNorm that alone reads its output."""
    calls = [node for node in _LayerTracer().trace(network).nodes if node.op == "call_module"]
    counts = Counter(node.target for node in calls)

    def is_foldable(node: Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        return counts[node.target] == 1 and type(network.get_submodule(str(node.target))) in kinds

    return [
        (str(convolution.target), str(norm.target))
        for convolution in calls
        for norm in convolution.users
        if len(convolution.users) == 1
        and norm.args[:1] == (convolution,)
        and is_foldable(convolution, (nn.Conv2d,))
        and is_foldable(norm, tuple(REPLACEMENTS))
    ]


class _LayerTracer(Tracer):
    """Traces the code of known classes only: modules of other classes are leaves."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) not in TRACED
