"""A whole training step, in each quarter of dynamic sampling."""

from collections.abc import Iterator, Sequence

from benchmarks import arithmetic, builders
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.laps import Laps
from benchmarks.peers import LightlyTrainer, side
from benchmarks.setting import Setting
from us3l.models.backbones.backbone import Backbone
from us3l.params.sampling import Sampling
from us3l.training.lr_schedule import learning_rate
from us3l.training.width_sampling import min_width

QUARTERS = 4


def cases(setting: Setting) -> Iterator[Case]:
    for quarter in range(QUARTERS):
        yield _quarter(setting, quarter)
    yield _simclr(setting)


def _quarter(setting: Setting, quarter: int) -> Case:
    run = setting.run
    epoch = quarter * run.epochs // QUARTERS
    widths, lr = step_widths(setting, epoch), learning_rate(run.optimizer, epoch, run.epochs)
    views, count, laps = builders.two_views(setting), run.batch.shards, Laps(setting)
    train_step, trainer = builders.train_step(setting, laps), builders.trainer(setting)
    trainer.optimizer.register_step_pre_hook(laps)
    shards, plain = builders.shards(views, count), builders.plain_shards(views, count)

    def ours() -> dict[str, float]:
        train_step(shards, widths, epoch, lr)
        return _by_width(widths, laps)

    def straightforward() -> dict[str, float]:
        trainer.step(plain, widths, epoch, lr)
        return _by_width(widths, laps)

    return Case(
        name=f"quarter {quarter + 1}: widths {' '.join(f'{width:g}' for width in widths)}",
        unit="step",
        sides={OURS: Side(ours), STRAIGHTFORWARD: Side(straightforward)},
        images=setting.batch,
        flop=arithmetic.step(setting, widths),
        note=f"two views of {setting.batch} images; shards: {count}",
    )


def step_widths(setting: Setting, epoch: int) -> list[float]:
    """Return the widths of a step in an epoch, with the middle of the range in the place of drawn ones."""
    sampling = setting.sampling
    low, high = min_width(sampling, epoch, setting.run.epochs), sampling.widest
    drawn = [(low + high) / 2] * (sampling.widths_per_step - 2)
    return [high] if low == high else [high, *drawn, low]


def _by_width(widths: Sequence[float], laps: Laps) -> dict[str, float]:
    """Return the seconds of each student, a lap from the gradients of the width before to its own.

    A lap has a step of the optimizer, and a forward and a backward pass of the student.
    """
    return {f"student at {width:g}": seconds for width, seconds in zip(widths[1:], laps.seconds(), strict=True)}


def _simclr(setting: Setting) -> Case:
    """Compare SimCLR at full width, without teacher and regularizer: lightly has that, too."""
    views, run = builders.two_views(setting), setting.run
    method = run.method.model_copy(update={"name": "simclr", "base_loss": "nt-xent", "momentum": None})
    alone = Sampling(range=(1.0, 1.0), widths_per_step=1)
    plain_run = run.model_copy(update={"method": method, "sampling": alone, "regularizer": None})
    train_step = builders.train_step_of(setting, plain_run)
    shards = builders.shards(views, run.batch.shards)

    def lightly() -> Side:
        network = Backbone(run.backbone, setting.plan.data.dataset.channels).build(1.0)
        trainer = LightlyTrainer(network, setting)
        return Side(lambda: trainer.step(views))

    return Case(
        name="SimCLR at full width alone",
        unit="step",
        sides={
            OURS: Side(lambda: train_step(shards, [1.0], 0, run.optimizer.lr)),
            "lightly": side("lightly", lightly),
        },
        images=setting.batch,
        flop=arithmetic.step(setting, [1.0], teacher=False),
        note=f"two views of {setting.batch} images; shards: {run.batch.shards}; lightly has one forward pass for both "
        "views, with BatchNorm's statistics and negatives of the whole batch",
    )
