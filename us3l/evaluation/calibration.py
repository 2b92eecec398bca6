"""BatchNorm calibration: running statistics of each width's own activations (US-Nets, arXiv 1903.05134)."""

import torch
from torch import Tensor, nn

from us3l.data.images import Images
from us3l.models.batch_norms import BatchNorm, batch_norms
from us3l.params.dataset import Views
from us3l.params.protocols.calibration import Calibration
from us3l.utils.philox import Purpose, RandomKey, permutation


@torch.no_grad()
def calibrate_batch_norms(
    networks: list[nn.Module], calibration: Calibration, images: Images, views: Views, seed: int
) -> None:
    """Give each network the running statistics of its own activations; all of them see the same batches."""
    norms = [norm for network in networks for norm in batch_norms(network, BatchNorm).values()]
    if not norms:
        return
    for norm in norms:
        norm.momentum = calibration.momentum
    for network in networks:
        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    for epoch in range(calibration.passes):
        key = RandomKey(seed, Purpose.CALIBRATE, epoch)
        batches = full_batches(permutation(key, len(images), images.device), calibration.batch_size)
        for (x,) in images.augmented(batches, [views.linear], views.normalize, key):
            x = x.contiguous(memory_format=torch.channels_last)
            for network in networks:
                network(x)


def full_batches(order: Tensor, size: int) -> list[Tensor]:
    """Split into full batches only, one batch of all images where there are fewer than `size`.

    A batch of few images would weigh as much in the running statistics as the others.
    """
    full = len(order) // size * size
    return list(order[: full or len(order)].split(size))
