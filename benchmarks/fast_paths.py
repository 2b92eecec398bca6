"""A training step against itself without one of its fast paths: fused BatchNorms, and channels last in memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

from torch import Tensor

from benchmarks import arithmetic, builders
from benchmarks.compare import OURS, Case, Side
from benchmarks.setting import Setting
from benchmarks.step import step_widths
from us3l.data.stream import Shard
from us3l.models.ghost_batch_norm import ghost_batch_norm_eager
from us3l.training.lr_schedule import learning_rate


def cases(setting: Setting) -> Iterator[Case]:
    shards = builders.shards(builders.two_views(setting), setting.run.batch.shards)
    own_norms = patch("us3l.models.ghost_batch_norm.ghost_batch_norm", ghost_batch_norm_eager)
    channels_first = patch("us3l.training.flat_parameters._laid_out", Tensor.contiguous)
    yield case(
        setting,
        "BatchNorms in fused kernels",
        {OURS: Side(step(setting, shards)), "PyTorch's": Side(step(setting, shards, own_norms))},
        "on a CPU both are PyTorch's",
    )
    yield case(
        setting,
        "channels last",
        {
            OURS: Side(step(setting, shards)),
            "channels first": Side(step(setting, [_channels_first(shard) for shard in shards], channels_first)),
        },
        "layout of views and weights",
    )


def case(setting: Setting, name: str, sides: dict[str, Side | None], note: str) -> Case:
    """Return the comparison of ways to take `step`."""
    widths = step_widths(setting, setting.run.epochs - 1)
    return Case(
        name=name,
        unit="step",
        sides=sides,
        images=setting.batch,
        flop=arithmetic.step(setting, widths),
        note=f"{note}; widths {' '.join(f'{width:g}' for width in widths)}; two views of {setting.batch} images; "
        f"shards: {setting.run.batch.shards}",
    )


def step(
    setting: Setting, shards: Sequence[Shard], without: AbstractContextManager[object] | None = None
) -> Callable[[], Tensor]:
    """Build a step of the last epoch on these shards; it returns the losses. without: takes a fast path away."""
    run, train_step = setting.run, builders.train_step(setting)
    epoch = run.epochs - 1
    widths, lr = step_widths(setting, epoch), learning_rate(run.optimizer, epoch, run.epochs)

    def turn() -> Tensor:
        with without or nullcontext():
            return train_step(shards, widths, epoch, lr)

    return turn


def _channels_first(shard: Shard) -> Shard:
    return shard._replace(views=tuple(view.contiguous() for view in shard.views))
