"""What evaluation protocols share: the images as networks see them, and the networks' features."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from us3l.data.images import Images, open_images
from us3l.data.resident import resident
from us3l.data.store import Store
from us3l.models.backbones.custom import require_features
from us3l.params.dataset import Views
from us3l.utils.errors import UserError
from us3l.utils.philox import Purpose, RandomKey

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
        key = RandomKey(self.seed, Purpose.LINEAR_AUGMENT, epoch)
        return (x for (x,) in self._train.augmented(batches, [self.views.linear], self.views.normalize, key))

    def training(self) -> Iterator[Tensor]:
        """All training images in the test view, in chunks."""
        return self._plain(self._train)

    def test(self) -> Iterator[Tensor]:
        """All test images, in chunks."""
        return self._plain(self._test)

    def _plain(self, images: Images) -> Iterator[Tensor]:
        return images.plain(torch.arange(len(images)).split(CHUNK), self.views.test, self.views.normalize)


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
