"""A sheet of a data set's own images as networks see them: is the augmentation sane?"""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from us3l.data.images import open_images
from us3l.data.store import open_store
from us3l.params.dataset import Normalize
from us3l.pipeline.figures.style import empty
from us3l.pipeline.plan.figure import FigurePlan
from us3l.utils.philox import Purpose, RandomKey

IMAGES = 8  # below each other, evenly spaced over the training images
EPOCHS = 2  # of a training with the seed 0, whose views are shown


def draw(plan: FigurePlan) -> Figure:
    """Draw for each image the view of the test, those of two epochs of a training, and one of linear evaluation."""
    data = plan.shown_data
    store, views = open_store(data.folder), data.dataset.views
    images = open_images(store.train, torch.device("cpu"))
    numbers = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long()
    columns = {"test view": next(images.plain([numbers], views.test, views.normalize))}
    for epoch in range(EPOCHS):
        key = RandomKey(0, Purpose.AUGMENT, epoch)
        [made] = images.augmented([numbers], views.pretrain, views.normalize, key)
        columns |= {f"epoch {epoch + 1}, view {number}": view for number, view in enumerate(made, 1)}
    key = RandomKey(0, Purpose.LINEAR_AUGMENT, 0)
    [[columns["linear view"]]] = images.augmented([numbers], [views.linear], views.normalize, key)
    figure, [axes] = empty(1.25 * len(columns), 1.15 * len(numbers) + 0.7, columns=len(columns))
    for place, (title, column) in zip(axes, columns.items(), strict=True):
        place.imshow(stacked(visible(column, views.normalize)), cmap="gray", vmin=0, vmax=1)
        place.set_title(title, loc="center")
        place.set_axis_off()
    figure.suptitle(f"Views of {data.name}")
    return figure


def stacked(images: np.ndarray) -> np.ndarray:
    """Put images [B, H, W, …] below each other, with white between them."""
    gap = [(0, 0), (0, max(1, images.shape[1] // 12)), *[(0, 0)] * (images.ndim - 2)]
    padded = np.pad(images, gap, constant_values=1)
    return padded.reshape(-1, *padded.shape[2:])


def visible(views: Tensor, normalize: Normalize) -> np.ndarray:
    """Undo the normalization: return [B, H, W, C] in [0, 1], without C where there is one channel."""
    mean, std = torch.tensor([normalize.mean, normalize.std])[:, :, None, None]
    return (views * std + mean).clamp(0, 1).permute(0, 2, 3, 1).squeeze(-1).numpy()
