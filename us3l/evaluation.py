"""What the protocols share: a run's narrow networks, the images as they see them, and one JSON for each width."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from us3l.complexity import cost, outputs_left
from us3l.data.images import Images, open_images
from us3l.data.resident import resident
from us3l.data.store import Store, open_store
from us3l.errors import UserError
from us3l.models.own import require_features
from us3l.networks import networks_to_evaluate
from us3l.params.data import Views
from us3l.params.training import Pruned
from us3l.plan import RunPlan
from us3l.provenance import identify, record
from us3l.random import Purpose
from us3l.records import write_record
from us3l.scores import score

CHUNK = 1024  # images that are decoded at once and, on a GPU, in a forward pass without gradients
CACHE = 2**15  # pixels of the images whose activations a CPU's cache holds, in a network that is as wide as they come
FEWEST = 16  # images at once that make reading the weights worth it


class Seen:
    """A data set as the networks see it. Views are [B, C, H, W], normalized; labels: [N] of the training images."""

    def __init__(self, store: Store, views: Views, seed: int, device: torch.device) -> None:
        self.views, self.seed, self.classes = views, seed, len(store.classes)
        self.labels = resident(store.train.labels, device)
        self._train, self._test = open_images(store.train, device), open_images(store.test, device)

    @property
    def example(self) -> Tensor:
        """One test image, [1, C, H, W]."""
        return next(self._test.plain([torch.arange(1)], self.views.test, self.views.normalize))

    def augmented(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """For each batch the linear view of training images, whose numbers it holds [B], as they look in this epoch."""
        where = {"seed": self.seed, "purpose": Purpose.LINEAR_AUGMENT, "epoch": epoch}
        return (x for (x,) in self._train.augmented(batches, [self.views.linear], self.views.normalize, **where))

    def training(self) -> Iterator[Tensor]:
        """All training images in the test view, in chunks."""
        return self._plain(self._train)

    def test(self) -> Iterator[Tensor]:
        """All test images, in chunks."""
        return self._plain(self._test)

    def _plain(self, images: Images) -> Iterator[Tensor]:
        return images.plain(torch.arange(len(images)).split(CHUNK), self.views.test, self.views.normalize)


Answer = Callable[[list[nn.Module], Seen, Any], list[Tensor]]


def evaluate(plan: RunPlan, seed: int, device: torch.device, answer: Answer) -> None:
    """Write one JSON for each width of the run.

    `answer` makes of the networks, in evaluation mode on the device, the images and the protocol the logits of each
    network [test images, classes]. Raises UserError where a network or the data set is not as expected.
    """
    store, kind, start = open_store(plan.data.folder), plan.protocol.kind, time.monotonic()
    opened = networks_to_evaluate(plan, seed, store)
    networks = [network.to(device) for network, _ in opened]
    if isinstance(plan.maker("calibrate").run, Pruned):
        _keep_pruned(networks)
    images = Seen(store, plan.data.dataset.views, seed, device)
    example = images.example
    for width, network in zip(plan.widths, networks, strict=True):
        require_features(f"{plan.backbone} at width {width}", network, example)
    answers = answer(networks, images, plan.protocol)
    labels = resident(store.test.labels, torch.device("cpu"))
    scores = [score(each.cpu(), labels) for each in answers]
    seconds = (time.monotonic() - start) / len(networks)
    where = {"study": plan.study, "run": plan.name, "protocol": kind, "dataset": plan.data.name}
    for width, network, (_, origin), result in zip(plan.widths, networks, opened, scores, strict=True):
        identity = identify(kind, plan.recipe(kind), **origin, seed=seed, width=width)
        size = cost(network.eval(), example, images.classes)
        facts = record(identity, device, seconds)
        write_record(plan.evaluation(seed, width), {**where, **result, **size, **facts})


def _keep_pruned(networks: list[nn.Module]) -> None:
    """No gradient reaches BatchNorm channels that are zero: what is cut stays silent where the rest is trained.

    The weights before and after a silent channel get no gradient from it anyway.
    """
    norms = [each for network in networks for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        for parameter in (norm.weight, norm.bias):
            if parameter.requires_grad:
                parameter.register_hook(outputs_left(norm).mul)


@torch.no_grad()
def features(networks: list[nn.Module], views: Iterable[Tensor]) -> list[Tensor]:
    """What each network makes of the chunks of images: [N, F]."""
    chunks = [[network(x) for network in networks] for view in views for x in _pieces(view)]
    return [torch.cat(of_one) for of_one in zip(*chunks, strict=True)]


def _pieces(x: Tensor) -> Sequence[Tensor]:
    """Images as networks take them fastest: channels last, and on a CPU no more at a time than its cache holds."""
    x = x.contiguous(memory_format=torch.channels_last)
    return [x] if x.is_cuda else x.split(max(FEWEST, CACHE // x.shape[2:].numel()))


def feature_sizes(networks: list[nn.Module], images: Seen) -> list[int]:
    """How many features each network makes of an image.

    Raises UserError where that is not the same in the view of the training and in that of the test.
    """
    first = torch.arange(1, device=images.labels.device)
    views = {"linear": next(images.augmented(0, [first])), "test": images.example}
    return [_feature_size(network, views) for network in networks]


def _feature_size(network: nn.Module, views: dict[str, Tensor]) -> int:
    sizes = {key: require_features(f"views.{key}: the network", network, x) for key, x in views.items()}
    if sizes["linear"] != sizes["test"]:
        made = [f"{sizes[key]} features of views.{key}'s {x.shape[2]}x{x.shape[3]} pixels" for key, x in views.items()]
        raise UserError(f"the network makes {' and '.join(made)}; both views must be of one size")
    return sizes["test"]
