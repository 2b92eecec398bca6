"""Networks as they run fastest where nothing is trained: BatchNorms in the convolutions before them, channels last.

A BatchNorm in evaluation mode multiplies and adds a number to each channel, which the convolution can do itself
(Jacob et al. 2018, arXiv 1712.05877, section 3.2).
"""

from collections import Counter
from copy import deepcopy

import torch
from torch import nn
from torch.fx import Node, Tracer
from torch.nn.utils.fusion import fuse_conv_bn_eval

from us3l.models.backbones.layers import AddReLU, NormReLU
from us3l.models.backbones.mobilenet import InvertedResidual, MobileNetV2
from us3l.models.backbones.resnet import BasicBlock, Bottleneck, ResNet

# The classes whose code is known to do nothing with a layer but to call it.
KNOWN = (ResNet, BasicBlock, Bottleneck, MobileNetV2, InvertedResidual, nn.Sequential)

# What is left of a normalization when its convolution multiplies and adds; one of a class that is not here stays.
LEFT: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: nn.Identity, NormReLU: AddReLU}


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy, in evaluation mode, without the BatchNorms of a ResNet or MobileNetV2: [B, C, H, W] to [B, F] as before.

    A BatchNorm is folded where it alone takes the output of a convolution, and both run once. Networks of other
    classes, such as a user's own, whose code may do anything with its layers, are not copied and get the layout only.
    """
    if type(network) in (ResNet, MobileNetV2):
        network = deepcopy(network).eval()
        for convolution, norm in _pairs(network):
            layers = network.get_submodule(convolution), network.get_submodule(norm)
            network.set_submodule(convolution, fuse_conv_bn_eval(*layers))
            network.set_submodule(norm, LEFT[type(layers[1])]())
    return network.to(memory_format=torch.channels_last)


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """The names of each convolution and of the BatchNorm that alone takes its output."""
    calls = [node for node in _Layers().trace(network).nodes if node.op == "call_module"]
    counts = Counter(node.target for node in calls)

    def is_one(node: Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        return counts[node.target] == 1 and type(network.get_submodule(node.target)) in kinds

    return [
        (convolution.target, norm.target)
        for convolution in calls
        for norm in convolution.users
        if len(convolution.users) == 1
        and norm.args[:1] == (convolution,)
        and is_one(convolution, (nn.Conv2d,))
        and is_one(norm, tuple(LEFT))
    ]


class _Layers(Tracer):
    """Looks into nothing but what is known."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) not in KNOWN
