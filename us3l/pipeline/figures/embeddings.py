"""Embeddings of the test images at three widths of a run, in two dimensions."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from us3l.data.images import open_images
from us3l.data.store import open_store
from us3l.evaluation.features import features
from us3l.models.saved_network import open_network
from us3l.pipeline.figures.style import empty, row_style
from us3l.pipeline.plan.figure import FigurePlan

MOST_IMAGES = 600
MOST_CLASSES = 10


def draw(plan: FigurePlan) -> Figure:
    """Draw the features of test images by t-SNE (cosine distance, a fixed seed), each as the number of its class.

    Of more than 10 classes, the first 10 are shown, of more than 600 images as many, evenly spaced.
    """
    run, store = plan.runs[0], open_store(plan.shown_data.folder)
    labels = np.asarray(store.test.labels)
    chosen = np.flatnonzero(labels < MOST_CLASSES)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(MOST_IMAGES, len(chosen))).astype(int)]
    views = run.data.dataset.views
    images = open_images(store.test, torch.device("cpu")).plain([torch.from_numpy(chosen)], views.test, views.normalize)
    networks = [open_network(path)[0] for path in plan.networks]
    figure, [axes] = empty(3.2 * len(networks), 3.9, columns=len(networks))
    for place, path, made in zip(axes, plan.networks, features(networks, images), strict=True):
        _draw_points(place, made.numpy(), labels[chosen], store.classes)
        place.set_title(f"width {plan.networks[path]:g}")
    figure.suptitle(f"Test images of {run.data.name}, as {run.study} {run.name} sees them (seed {run.seeds[0]})")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)), markerscale=1.6)
    return figure


def _draw_points(place: Any, made: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Draw the number of the class for each image."""
    few = min(30, (len(made) - 1) / 3)
    with threadpool_limits(1):  # so that the same numbers come on any number of cores
        points = TSNE(metric="cosine", init="pca", perplexity=few, random_state=0).fit_transform(made)
    for number, name in enumerate(classes[:MOST_CLASSES]):
        style, mine = row_style(number), points[labels == number]
        place.scatter(*mine.T, s=20, c=style["color"], marker=_numeral(number), linewidths=0, label=name)
    place.set(xticks=[], yticks=[])
    place.grid(False)
    place.spines[:].set_visible(False)


def _numeral(number: int) -> Path:
    """Return the outline of a number, around the origin."""
    outline = TextPath((0, 0), str(number))
    return outline.transformed(Affine2D().translate(*-outline.get_extents().get_points().mean(axis=0)))
