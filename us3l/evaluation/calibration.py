"""BatchNorm calibration: running statistics of each width's own activations (US-Nets, arXiv 1903.05134)."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from us3l.data.images import open_images
from us3l.data.store import Store
from us3l.params.calibration import Calibration
from us3l.params.dataset import Views
from us3l.utils.philox import Purpose, RandomKey, permutation


@torch.no_grad()
def settle_statistics(
    networks: list[nn.Module], settings: Calibration, views: Views, store: Store, seed: int, device: torch.device
) -> None:
    """Give each network the running statistics of its own activations; all of them see the same batches."""
    norms = [each for network in networks for each in network.modules() if isinstance(each, _BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = settings.momentum
    for network in networks:
        network.train().to(memory_format=torch.channels_last)
    images = open_images(store.train, device)
    for epoch in range(settings.passes):
        key = RandomKey(seed, Purpose.CALIBRATE, epoch)
        order = permutation(key, len(images), device)
        shown = images.augmented(batches(order, settings.batch_size), [views.linear], views.normalize, key)
        for (x,) in shown:
            x = x.contiguous(memory_format=torch.channels_last)
            for network in networks:
                network(x)


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Whole batches only, since one of few images would weigh as much as the others; all images where none is whole."""
    whole = len(order) // size * size
    return list(order[: whole or len(order)].split(size))
