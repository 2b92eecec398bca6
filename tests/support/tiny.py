"""Runs of params.yaml made small: the same paths through the code, in images of a few pixels and one training step."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from us3l.data.store import DatasetSource, SplitSource, write_store
from us3l.models.backbones import mobilenet, vit
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.backbones.resnet import ResNet
from us3l.params.params import Params
from us3l.params.runs import PretrainRun, PruneRun, ReuseRun
from us3l.params.sampling import Sampling
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.plan.dataset import DatasetPlan
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan

CLASSES = 6
TRAIN, TEST = 8, 6  # images
NARROWEST = 0.25
BLOCKS = 2  # of a stage of a ResNet
PLANES = 16  # of its first stage
EPOCHS = 4  # of which the last one samples all widths

Content = dict[str, Any]


def tiny(run: RunPlan) -> RunPlan:
    """The run made small, in a study of its own, as those are whose weights it takes.

    A study is named after what is in it, so that runs that differ in nothing else, such as epochs, are one.
    """
    content: Content = {"build": [], "datasets": {}, "protocols": {}, "studies": {}}
    study = _add_study(content, run, _ends(run))
    return Plan(Params.model_validate(content)).run(study, "run")


def _ends(run: RunPlan) -> set[float]:
    """Its widest and its narrowest network; a narrow one that is trained alone is of the narrowest width."""
    return {NARROWEST} if _is_narrow_alone(run) else {max(run.widths), min(run.widths)}


def _is_narrow_alone(run: RunPlan) -> bool:
    sampling = run.producer("pretrain").run.sampling
    return isinstance(sampling, Sampling) and sampling.range[0] == sampling.range[1] < 1


def _add_study(content: Content, run: RunPlan, widths: set[float]) -> str:
    """Add all that a run needs to params; the name of its study."""
    made = run.run.model_dump(mode="json") | {"resources": {"gpus": 0}}
    if isinstance(run.run, PretrainRun):
        _shrink_training(made)
        if _is_narrow_alone(run):
            made["sampling"]["range"] = [NARROWEST, NARROWEST]
    if not isinstance(run.run, PruneRun):
        made["dataset"] = _add_dataset(content, run)
    if run.weights_from:
        taken = widths if isinstance(run.run, ReuseRun) else set()
        source = f"{_add_study(content, run.weights_from, _ends(run.weights_from) | taken)}/run"
        made |= (
            {"method": made["method"] | {"teacher": source}}
            if isinstance(run.run, PretrainRun)
            else {"weights_from": source}
        )
    if isinstance(run.run, ReuseRun):
        made["protocol"] = None
    protocol = _small_protocol(run)
    study = {"seeds": [0], "widths": sorted(widths), "protocol": _add(content["protocols"], protocol)}
    return _add(content["studies"], {**study, "runs": {"run": made}, "tables": {}})


def _add(place: Content, record: Any) -> str:
    name = fingerprint(record)
    place[name] = record
    return name


def _shrink_training(run: Content) -> None:
    run["epochs"], run["batch"] = EPOCHS, {"size": TRAIN, "shards": min(run["batch"]["shards"], 2)}
    _shrink_optimizer(run["optimizer"], 0.001 if run["optimizer"]["kind"] == "adamw" else 0.05)
    run["method"] |= {"queue": run["method"]["queue"] and TRAIN}
    if features := run["method"]["feature_distillation"]:
        features["layers"] = [re.sub(r"\.\d+\.", f".{BLOCKS - 1}.", layer) for layer in features["layers"]]
    if run["method"]["name"] != "supervised":
        run["method"] |= {"projector": {"hidden": 16, "output": 8}}
    if run["regularizer"]:
        run["regularizer"]["warmup_epochs"] = min(run["regularizer"]["warmup_epochs"], 1)


def _shrink_optimizer(optimizer: Content, lr: float) -> None:
    milestones = [1] if optimizer["milestones"] else []
    optimizer |= {"lr": lr, "milestones": milestones, "warmup_epochs": min(optimizer["warmup_epochs"], 1)}


def _small_protocol(run: RunPlan) -> Content:
    made: Content = run.protocol.model_dump(mode="json")
    made["calibration"] |= {"passes": 1, "batch_size": TRAIN}
    if made["kind"] == "knn":
        return made | {"neighbours": TRAIN // 2}
    _shrink_optimizer(made["optimizer"], 0.1)
    return made | {"epochs": 2, "batch_size": TRAIN}


# --- networks -------------------------------------------------------------------------------------------------------


def thin_networks(patch: pytest.MonkeyPatch) -> None:
    """Give networks fewer blocks, and fewer channels, of which the narrowest width still has fewer."""
    stages = [(expansion, planes, 2 if planes == 24 else 1) for expansion, planes, _ in mobilenet._V2_STAGES]
    patch.setattr(mobilenet, "_V2_STAGES", tuple(stages))
    patch.setattr(mobilenet, "_V1_STAGES", tuple((planes // 4, min(n, 2)) for planes, n in mobilenet._V1_STAGES))
    patch.setattr(vit, "DEPTH", 2)
    for name, build in list(BUILT_IN.items()):
        if isinstance(build, partial) and build.func is ResNet:
            block, blocks, planes, stem = build.args
            small = tuple(min(n, BLOCKS) for n in blocks), tuple(PLANES * p // planes[0] for p in planes)
            patch.setitem(BUILT_IN, name, partial(ResNet, block, *small, stem))


# --- images ---------------------------------------------------------------------------------------------------------


def side(run: RunPlan) -> int:
    """Pixels that leave something of an image to the last layers of the run's networks."""
    names = [run.backbone, run.weights_from.backbone] if run.weights_from else [run.backbone]
    return 8 if all(name.startswith(("cifar", "small", "pixels")) for name in names) else 32


def _add_dataset(content: Content, run: RunPlan) -> str:
    """A data set that is another than that of the run's networks stays another."""
    dataset, small = run.data.dataset, side(run)
    views = dataset.views.model_dump(mode="json")
    _shrink_views(views, small / max(_sizes(views), default=small))
    source = {"kind": "digits", "test_fraction": 0.5}
    if dataset.source.kind != "digits":
        in_files = getattr(dataset.source, "image_size", small) is None
        source = {"kind": "folder", "train": "train", "test": "test", "image_size": None if in_files else small}
    moved = run.data is not run.producer("calibrate").data
    name = fingerprint([source, views, small]) + "-moved" * moved
    content["datasets"][name] = {"source": source, "views": views}
    return name


def _sizes(views: Content) -> list[int]:
    """Of the images that networks see, as far as the views say it."""
    crops = [view["resized_crop"] for view in (*views["pretrain"], views["linear"])]
    return [crop["size"] for crop in crops if crop] + [size for size in [views["test"]["center_crop"]] if size]


def _shrink_views(views: Content, factor: float) -> None:
    for view in (*views["pretrain"], views["linear"]):
        if view["resized_crop"]:
            view["resized_crop"]["size"] = round(view["resized_crop"]["size"] * factor)
        if view["blur"]:
            view["blur"]["kernel_size"] = round(view["blur"]["kernel_size"] * factor) // 2 * 2 + 1
    for key in ("resize", "center_crop"):
        views["test"][key] = views["test"][key] and round(views["test"][key] * factor)


def draw_images() -> None:
    """Files of noise in the folders train and test."""
    for folder, count in (("train", TRAIN), ("test", TEST)):
        for index, image in enumerate(_noise(count, 40, 3)):
            path = Path(folder, f"class{index % CLASSES}", f"{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def write_digits(data: DatasetPlan) -> None:
    """A store of noise instead of the digits, which are many."""
    splits = [SplitSource(np.arange(count) % CLASSES, _noise(count, 8, 1)) for count in (TRAIN, TEST)]
    write_store(data.folder, DatasetSource(tuple("abcdef"), (8, 8, 1), *splits))


def _noise(count: int, side: int, channels: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), np.uint8)
