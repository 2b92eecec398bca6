"""Images as evaluation protocols see them, and the features that networks make of them."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from us3l.data.images import Images, first_view, open_images
from us3l.data.resident import to_device
from us3l.data.store import Store
from us3l.models.backbones.custom import require_features
from us3l.params.dataset import Views
from us3l.utils.errors import UserError
from us3l.utils.philox import Purpose, RandomKey

CHUNK = 1024  # images that are decoded at once and, on a GPU, in a forward pass without gradients
CPU_PIXELS = 2**15  # of images whose activations fit into a CPU's cache, in the widest of the networks
CPU_IMAGES = 16  # at least, so that reading the weights pays


class EvaluationImages:
    """Data set as the networks see it. Views are [B, C, H, W], normalized; labels: [N] of the training images."""

    def __init__(self, store: Store, views: Views, seed: int, device: torch.device) -> None:
        self.views, self.seed, self.classes = views, seed, len(store.classes)
        self.labels = to_device(store.train.labels, device)
        self._train, self._test = open_images(store.train, device), open_images(store.test, device)

    @property
    def example(self) -> Tensor:
        """Test image, [1, C, H, W]."""
        return first_view(self._test, self.views.test, self.views.normalize)

    def augmented(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the linear view of each batch of training images, numbers [B], as it looks in this epoch."""
        key = RandomKey(self.seed, Purpose.LINEAR_AUGMENT, epoch)
        return (x for (x,) in self._train.augmented(batches, [self.views.linear], self.views.normalize, key))

    def training(self) -> Iterator[Tensor]:
        """Yield all training images in the test view, in chunks."""
        return self._plain(self._train)

    def test(self) -> Iterator[Tensor]:
        """Yield all test images, in chunks."""
        return self._plain(self._test)

    def _plain(self, images: Images) -> Iterator[Tensor]:
        return images.plain(torch.arange(len(images)).split(CHUNK), self.views.test, self.views.normalize)


@torch.no_grad()
def features(networks: list[nn.Module], views: Iterable[Tensor]) -> list[Tensor]:
    """Compute the features of each network, [N, F], of images that come in chunks [B, C, H, W]."""
    chunks = [[network(x) for network in networks] for view in views for x in _sub_batches(view)]
    return [torch.cat(of_one) for of_one in zip(*chunks, strict=True)]


def _sub_batches(x: Tensor) -> Sequence[Tensor]:
    """Split images as networks take them fastest: channels last, and on a CPU as many as its cache holds."""
    x = x.contiguous(memory_format=torch.channels_last)
    return [x] if x.is_cuda else x.split(max(CPU_IMAGES, CPU_PIXELS // x.shape[2:].numel()))


def feature_sizes(networks: list[nn.Module], images: EvaluationImages) -> list[int]:
    """Count the features that each network makes of an image.

    Raises UserError where the views of training and test give different numbers.
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
