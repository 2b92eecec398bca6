"""A few steps of a training in each quarter of dynamic sampling, starting from the data set's pixels."""

from collections.abc import Iterator

from benchmarks import arithmetic, builders
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.setting import Setting
from benchmarks.step import QUARTERS, step_widths
from benchmarks.straightforward.views import loader, random_view
from us3l.data.store import Split
from us3l.data.stream import Stream
from us3l.training.lr_schedule import learning_rate
from us3l.utils.distributed import World

STEPS = {"cpu": 1, "cuda": 20}  # in each quarter


def cases(setting: Setting) -> Iterator[Case]:
    run, steps = setting.run, STEPS[setting.device.type]
    epochs = [quarter * run.epochs // QUARTERS for quarter in range(QUARTERS)]
    schedule = [
        (epoch, step_widths(setting, epoch), learning_rate(run.optimizer, epoch, run.epochs)) for epoch in epochs
    ]
    split = setting.store(steps * setting.batch).train
    images = QUARTERS * steps * setting.batch
    yield Case(
        name=f"{QUARTERS * steps} steps, {steps} in each quarter",
        unit=f"{QUARTERS * steps} steps",
        sides={OURS: _ours(setting, split, schedule), STRAIGHTFORWARD: _straightforward(setting, split, schedule)},
        images=images,
        flop=steps * sum(arithmetic.step(setting, widths) for _, widths, _ in schedule),
        note=f"two views of {setting.batch} images in a step; shards: {run.batch.shards}; processes that load the "
        f"straightforward way: {setting.workers}; the regularizer's coefficients are made anew in each quarter",
    )


Schedule = list[tuple[int, list[float], float]]  # epoch, widths and learning rate of each quarter


def _ours(setting: Setting, split: Split, schedule: Schedule) -> Side:
    views, world = setting.views, World(0, 1, setting.device)
    stream = Stream(split, setting.run.batch, views.pretrain, views.normalize, setting.seed, world)
    train_step = builders.train_step(setting)

    def turn() -> None:
        for epoch, widths, lr in schedule:
            for shards in stream.shards(epoch):
                train_step(shards, widths, epoch, lr)

    return Side(turn)


def _straightforward(setting: Setting, split: Split, schedule: Schedule) -> Side:
    views, device = setting.views, setting.device
    two_views = [random_view(augmentation, views.normalize) for augmentation in views.pretrain]
    loaded = loader(split, two_views, setting.batch, setting.workers, device)
    trainer = builders.trainer(setting)

    def turn() -> None:
        for epoch, widths, lr in schedule:
            for both, _ in loaded:
                first, second = (view.to(device, non_blocking=True) for view in both)
                trainer.step(builders.plain_shards((first, second), setting.run.batch.shards), widths, epoch, lr)

    return Side(turn)
