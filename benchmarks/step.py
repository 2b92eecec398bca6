"""A whole training step, in each quarter of dynamic sampling."""

from collections.abc import Iterator, Sequence

from benchmarks import arithmetic, making
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.laps import Laps
from benchmarks.peers import LightlyTrainer, side
from benchmarks.setting import Setting
from us3l.models.backbones.backbone import Backbone
from us3l.params.runs import PretrainRun
from us3l.params.sampling import Sampling
from us3l.training.lr_schedule import learning_rate
from us3l.training.width_sampling import min_width

QUARTERS = 4


def cases(setting: Setting) -> Iterator[Case]:
    for quarter in range(QUARTERS):
        yield _of_quarter(setting, quarter)
    yield _simclr(setting)


def _of_quarter(setting: Setting, quarter: int) -> Case:
    run = setting.run
    epoch = quarter * run.epochs // QUARTERS
    widths, lr = widths_of(run, epoch), learning_rate(run.optimizer, epoch, run.epochs)
    views, count, laps = making.two_views(setting), run.batch.shards, Laps(setting)
    train_step, trainer = making.train_step(setting, laps), making.trainer(setting)
    trainer.optimizer.register_step_pre_hook(laps)
    shards, plain = making.shards(views, count), making.plain_shards(views, count)

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


def widths_of(run: PretrainRun, epoch: int) -> list[float]:
    """Of a step in an epoch, the drawn ones in the middle of their range."""
    low, high = min_width(run.sampling, epoch, run.epochs), run.sampling.widest
    drawn = [(low + high) / 2] * (run.sampling.widths_per_step - 2)
    return [high] if low == high else [high, *drawn, low]


def _by_width(widths: Sequence[float], laps: Laps) -> dict[str, float]:
    """A lap leads from one width's gradients to the next one's: a step of the optimizer, a student's two passes."""
    return {f"student at {width:g}": seconds for width, seconds in zip(widths[1:], laps.seconds(), strict=True)}


def _simclr(setting: Setting) -> Case:
    """Without widths, teacher and regularizer: what lightly has, too."""
    views, run = making.two_views(setting), setting.run
    method = run.method.model_copy(update={"name": "simclr", "base_loss": "nt-xent", "momentum": None})
    alone = Sampling(range=(1.0, 1.0), samples=1)
    plain = run.model_copy(update={"method": method, "sampling": alone, "regularizer": None})
    train_step = making.train_step_of(setting, plain)
    shards = making.shards(views, run.batch.shards)

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
