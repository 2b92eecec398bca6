"""Group regularization (paper, section 3.4; official losses/regularizers/) as per-element decay.

The penalty is sum(coefficient * p ** 2) over the parameters, or sum(coefficient * |p|) for the L1 kinds, so that its
gradient needs no autograd. The coefficients change once an epoch. Without a regularizer they are plain weight decay.
"""

from collections.abc import Collection

import torch
from torch import Size, Tensor

from us3l.params.optimizer import Regularizer
from us3l.params.runs import PretrainRun
from us3l.training.flat_parameters import FlatParameters
from us3l.utils.errors import UserError

FEATURE_PROJECTIONS = "feature_projections."


class Decay:
    """Penalty coefficient, or weight decay, of each weight [P] of a run; computed once an epoch."""

    def __init__(self, run: PretrainRun, weights: FlatParameters, batch_norms: Collection[str]) -> None:
        self.run, self.weights, self.batch_norms = run, weights, batch_norms
        self._of_epoch: dict[tuple[int, bool, int], tuple[Tensor, set[str]]] = {}

    def at(self, epoch: int, full_width: bool, with_grad: set[str]) -> tuple[Tensor, set[str]]:
        """Return the coefficients [P] in an epoch, and the names of the parameters that they decay.

        Weight decay spares a parameter that has had no gradient yet, as SGD does in PyTorch; a regularizer's penalty is
        a gradient, so it spares none but the feature projections. Frozen parameters do not move.
        """
        key = epoch, full_width, len(with_grad)
        if key not in self._of_epoch:
            of_epoch = {known: decay for known, decay in self._of_epoch.items() if known[0] == epoch}
            self._of_epoch = of_epoch | {key: self._scattered(self._by_name(epoch, full_width, with_grad))}
        return self._of_epoch[key]

    def forget(self) -> None:
        """Clear the cache, after another state was loaded."""
        self._of_epoch = {}

    def _by_name(self, epoch: int, full_width: bool, with_grad: set[str]) -> dict[str, Tensor]:
        if self.run.regularizer is None:
            return {name: torch.tensor(self.run.optimizer.weight_decay) for name in with_grad}
        shapes = self.weights.shapes
        penalized = {name: shape for name, shape in shapes.items() if not name.startswith(FEATURE_PROJECTIONS)}
        settings = self.run.regularizer, epoch, self.run.epochs, full_width, self.batch_norms
        return coefficients(penalized, *settings)

    def _scattered(self, by_name: dict[str, Tensor]) -> tuple[Tensor, set[str]]:
        trainable = self.weights.trainable
        decayed = {name: by_name[name] for name in trainable if name in by_name and by_name[name].any()}
        result = torch.zeros_like(self.weights.values)
        for name, view in self.weights.views(result).items():
            if name in decayed:
                view.copy_(decayed[name].expand(view.shape))
        return result, set(decayed)


def coefficients(
    shapes: dict[str, Size],
    regularizer: Regularizer,
    epoch: int,
    epochs: int,
    full_width: bool,
    batch_norms: Collection[str] = (),
) -> dict[str, Tensor]:
    """Return for each parameter name a coefficient tensor, of a shape that broadcasts to the parameter's.

    The group penalty leaves predictors out of a step at full width, as the official code does. The L1 kinds act on the
    parameters named in `batch_norms` only, the official ones on all 1-D parameters, other layers' biases included.
    Raises UserError where an L1 kind has none of the backbone's to act on.
    """
    if regularizer.is_l1 and not any(name.startswith("backbone.") for name in batch_norms):
        raise UserError(f"regularizer.kind: {regularizer.kind} needs a backbone with BatchNorms; take group or l2")
    plain, zero = torch.tensor(regularizer.strength), torch.tensor(0.0)
    if regularizer.kind == "l2":
        return dict.fromkeys(shapes, plain)
    groups = _group_strengths(regularizer, epoch, epochs)
    result = {}
    for name, shape in shapes.items():
        axis = _grouped_axis(regularizer, shape)
        spared = name not in batch_norms if regularizer.is_l1 else full_width and "predictor" in name
        if spared:
            result[name] = zero
        elif axis is None:
            result[name] = plain
        else:
            result[name] = groups[_group_of_channel(shape[axis], regularizer.groups)].view(
                -1, *[1] * (len(shape) - 1 - axis)
            )
    return result


def add_gradient(gradients: Tensor, coefficients: Tensor, values: Tensor, regularizer: Regularizer) -> None:
    """Add the penalty's gradient to `gradients`, in place: 2 * coefficient * p, or coefficient * sign(p) for L1."""
    if regularizer.is_l1:
        gradients.addcmul_(coefficients, values.sign())
    else:
        gradients.addcmul_(coefficients, values, value=2)


def _grouped_axis(regularizer: Regularizer, shape: Size) -> int | None:
    """Return the axis that is grouped: output channels, or for ViTs a matrix's input features."""
    if regularizer.by == "input-feature":
        return 1 if len(shape) == 2 else None
    return 0 if len(shape) in (1, 4) else None


def _group_strengths(regularizer: Regularizer, epoch: int, epochs: int) -> Tensor:
    """Return the strength of each group of channels [groups], from the first channels to the last.

    During the warm-up the L1 kinds have no penalty, and they do not ramp up after it.
    """
    index = torch.arange(regularizer.groups)
    warm = epoch < regularizer.warmup_epochs
    if regularizer.kind == "group-l1-batchnorm":
        return regularizer.strength * regularizer.alpha * index * (not warm)
    if regularizer.kind == "l1-batchnorm":
        return torch.full(index.shape, regularizer.strength * (not warm))
    if warm:
        return torch.full(index.shape, regularizer.strength)
    alpha, ramp_end = regularizer.alpha, epochs // 2
    if epoch < ramp_end:
        alpha *= (epoch - regularizer.warmup_epochs) / (ramp_end - regularizer.warmup_epochs)
    relative = alpha**index if regularizer.decay == "exponential" else 1 - alpha * index
    return regularizer.strength * relative


def _group_of_channel(channels: int, groups: int) -> Tensor:
    """Return the group of each channel [channels]: equal groups, the last of which takes the remainder."""
    if channels < groups:
        return torch.full((channels,), groups - 1)
    return (torch.arange(channels) // (channels // groups)).clamp(max=groups - 1)
