"""Linear evaluation of all widths: on images augmented in each epoch, and on features extracted once."""

from collections.abc import Iterator

from torch import nn

from benchmarks import arithmetic
from benchmarks.compare import OURS, STRAIGHTFORWARD, Case, Side
from benchmarks.setting import CLASSES, Setting
from benchmarks.straightforward.linear import train_each
from benchmarks.straightforward.views import Transform, loader, random_view, test_view
from us3l.data.store import Store
from us3l.evaluation.classifier import train_on_features
from us3l.evaluation.features import EvaluationImages, features
from us3l.evaluation.linear import train
from us3l.models.backbones.backbone import Backbone
from us3l.models.folding import fold_batch_norms

EPOCHS = 100


def cases(setting: Setting) -> Iterator[Case]:
    yield _augmented(setting)
    yield _extracted_once(setting)


def _augmented(setting: Setting) -> Case:
    store, views = setting.store(setting.images), setting.views
    networks, protocol = _networks(setting), setting.protocol.model_copy(update={"epochs": 1})
    images = EvaluationImages(store, views, setting.seed, setting.device)
    transform = random_view(views.linear, views.normalize)
    return Case(
        name=f"an epoch of {_widths_label(setting)}",
        unit="epoch",
        sides={
            OURS: Side(lambda: train([fold_batch_norms(network) for network in networks], images, protocol)),
            STRAIGHTFORWARD: _straightforward(setting, store, transform),
        },
        images=setting.images,
        flop=_flop(setting),
        note=f"{setting.images} images, augmented anew",
    )


def _extracted_once(setting: Setting) -> Case:
    store, views = setting.store(setting.images), setting.views
    networks, protocol = _networks(setting), setting.protocol.model_copy(update={"epochs": EPOCHS})
    images = EvaluationImages(store, views, setting.seed, setting.device)

    def ours() -> None:
        frozen = [fold_batch_norms(network) for network in networks]
        train_on_features(features(frozen, images.training()), images.labels, images.classes, protocol, setting.seed)

    return Case(
        name=f"{EPOCHS} epochs of {_widths_label(setting)}, without augmentation",
        unit=f"{EPOCHS} epochs",
        sides={
            OURS: Side(ours),
            STRAIGHTFORWARD: _straightforward(setting, store, test_view(views.test, views.normalize), 1 / EPOCHS),
        },
        note=f"{setting.images} images; ours computes the features once, and all {EPOCHS} epochs are measured; of the "
        f"straightforward way, which computes them in each epoch, 1 epoch is measured, and the total is {EPOCHS} times "
        "that",
    )


def _straightforward(setting: Setting, store: Store, view: Transform, units: float = 1.0) -> Side:
    """Build the side that trains one epoch, which is `units` of the case's unit."""
    networks, protocol = _networks(setting), setting.protocol.model_copy(update={"epochs": 1})
    loaded = loader(store.train, [view], protocol.batch_size, setting.workers, setting.device)
    return Side(lambda: train_each(networks, loaded, CLASSES, protocol, setting.device), units)


def _networks(setting: Setting) -> list[nn.Module]:
    """Build plain networks in evaluation mode, as calibration leaves them."""
    channels = setting.plan.data.dataset.channels
    plain = [Backbone(setting.run.backbone, channels).build(width) for width in setting.plan.widths]
    return [network.eval().to(setting.device) for network in plain]


def _widths_label(setting: Setting) -> str:
    return f"{len(setting.plan.widths)} widths"


def _flop(setting: Setting) -> float:
    """Count the operations of the networks alone: those of the classifiers are few."""
    return setting.images * sum(arithmetic.features(setting, width) for width in setting.plan.widths)
