"""Courses of trainings: loss, spread of the embeddings and learning rate by epoch, and what a monitor saw."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from us3l.params.sampling import FixedWidths
from us3l.pipeline.figures.style import empty, row_style
from us3l.pipeline.plan.figure import FigurePlan
from us3l.pipeline.plan.run import RunPlan
from us3l.utils.records import read_record

Curves = dict[str, dict[int, list[float]]]  # by label: for each epoch, the values of the seeds
PANELS = {"loss": "loss", "feature_std": "spread of the embeddings", "lr": "learning rate"}
PLAIN = {"color": "#444444", "linestyle": "-"}  # the learning rate, which is that of all widths
MONITORED = {"knn": "nearest neighbours, top-1 (%)", "rank": "effective rank"}


def draw(plan: FigurePlan) -> Figure:
    """Draw a line of panels for each training; curves are means over seeds, bands go from the least to the greatest."""
    records = {run: [read_record(run.training_record(seed)) for seed in run.seeds] for run in plan.runs}
    is_monitored = any(record.get("monitor") for of_run in records.values() for record in of_run)
    panels = PANELS | (MONITORED if is_monitored else {})
    figure, axes = empty(3.1 * len(panels), 1.7 * len(records) + 0.7, len(records), len(panels), sharex="row")
    handles: dict[str, dict[str, Any]] = {}
    for line, (run, of_run) in zip(axes, records.items(), strict=True):
        for place, key in zip(line, panels, strict=True):
            curves = _of_monitor(of_run, key) if key in MONITORED else _of_epochs(run, of_run, key)
            for label, curve in curves.items():
                _draw_curve(place, curve, handles.setdefault(label, _style(len(handles))) if label else PLAIN)
        line[0].set_ylabel(run.name)
    for first, last, title in zip(axes[0], axes[-1], panels.values(), strict=True):
        first.set_title(title)
        last.set_xlabel("epoch")
    figure.suptitle(f"Trainings of {plan.study}")
    lines = [Line2D([], [], **style) for style in handles.values()]
    figure.legend(lines, list(handles), loc="outside lower center", ncols=min(4, len(lines)))
    return figure


def _of_epochs(run: RunPlan, records: list[dict[str, Any]], key: str) -> Curves:
    """Collect the values of epochs, by the width's place in a step."""
    curves: Curves = {}
    for record in records:
        for epoch in record["epochs"]:
            values = epoch[key] if isinstance(epoch[key], list) else [epoch[key]]
            labels = _places(run, len(values)) if isinstance(epoch[key], list) else [""]
            for label, value in zip(labels, values, strict=True):
                curves.setdefault(label, {}).setdefault(epoch["epoch"] + 1, []).append(value)
    return curves


def _places(run: RunPlan, count: int) -> list[str]:
    """Name the widths of a step, which are in the order from the widest to the narrowest."""
    if isinstance(run.sampling, FixedWidths):
        return [f"width {width:g}" for width in sorted(run.sampling.widths, reverse=True)]
    between = ["between"] if count == 3 else [f"between, {number}." for number in range(1, count - 1)]
    return ["widest of the step", *between, "narrowest"][:count]


def _of_monitor(records: list[dict[str, Any]], key: str) -> Curves:
    curves: Curves = {}
    for record in records:
        for look in record.get("monitor") or []:
            for width, value in zip(look["widths"], look.get(key) or [], strict=False):
                curves.setdefault(f"width {width:g}", {}).setdefault(look["epoch"] + 1, []).append(value)
    return curves


def _draw_curve(place: Any, curve: dict[int, list[float]], style: dict[str, Any]) -> None:
    epochs = sorted(curve)
    place.plot(epochs, [np.mean(curve[epoch]) for epoch in epochs], markevery=max(1, len(epochs) // 6), **style)
    low, high = ([bound(curve[epoch]) for epoch in epochs] for bound in (min, max))
    place.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _style(number: int) -> dict[str, Any]:
    return row_style(number) | {"markersize": 4}
