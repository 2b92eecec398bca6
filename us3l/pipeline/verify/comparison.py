"""A recorded result compared with the same one derived again: bitwise, within rounding or statistically.

All that a record says is compared but its circumstances, and for what other hardware made but OF_ROUNDING, which is
compared by its own measure.
"""

import filecmp
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from us3l.evaluation.predictions import decode
from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.forms import CIRCUMSTANCES
from us3l.pipeline.identity import differences
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.requalification import requalification
from us3l.pipeline.verify.rederive import Derivation, Rederived
from us3l.pipeline.verify.rounding import (
    LOGITS,
    epoch_differences,
    network_difference,
    same_tensors,
    top5_bounds,
    unexplained,
)
from us3l.utils.errors import UserError

# What follows from the code that made a result, and is another after a requalification; seals of weights have it, too.
OF_CODE = {"code", "fingerprint", "checkpoint", "network", "networks", "teacher", "classifier"}
OF_ROUNDING = {*OF_CODE, "top1", "top5", "interval", "predictions", "epochs", "monitor", "probe"}
LONGEST = 100  # characters of a value to print


@dataclass(frozen=True)
class Found:
    """What differs, and of how many test images the predicted classes were compared, and how many are others."""

    wrong: list[str] = field(default_factory=list)
    images: int = 0
    differing: int = 0

    def __add__(self, other: "Found") -> "Found":
        return Found(self.wrong + other.wrong, self.images + other.images, self.differing + other.differing)

    @property
    def about_images(self) -> list[str]:
        return [f"{self.differing:,} of {self.images:,} predicted classes are others"] if self.images else []


def bitwise(each: Rederived, derivation: Derivation) -> Found:
    """Compare everything; after a requalification the weights themselves, whose seals name the code that made them."""
    is_of_other_code = any(requalification(job) for job in derivation.behind[each.job])
    wrong = _first_difference(each, OF_CODE if is_of_other_code else ())
    for path in each.job.outputs if each.path == each.job.record else []:
        again = each.folder / path
        if is_of_other_code and path.suffix == ".safetensors" and not same_tensors(path, again):
            wrong.append(f"{path}: other weights came again")
        if isinstance(each.job, PrepareJob) and path.suffix == ".npy" and not filecmp.cmp(path, again, shallow=False):
            wrong.append(f"{path}: other bytes came again from the source of {each.job.data.name}")
    return Found(wrong)


def within_rounding(each: Rederived) -> Found:
    """Compare what came again from the same weights: networks, and the classes of all test images."""
    found = Found(_first_difference(each, OF_ROUNDING))
    if each.job.stage in LOGITS:
        return found + _classes(each, LOGITS[each.job.stage])
    if each.job.stage in EVALUATIONS:
        return found + _inside_interval(each)
    weights = [path for path in each.job.outputs if path.suffix == ".safetensors"]
    differing = {path: network_difference(path, each.folder / path) for path in weights}
    return found + Found([f"{path}: {what} from what came again" for path, what in differing.items() if what])


def statistically(each: Rederived) -> Found:
    """Compare what came again from other weights: the course of trainings, and accuracies with recorded intervals."""
    found = Found(_first_difference(each, OF_ROUNDING))
    if each.job.stage == "pretrain":
        lines = epoch_differences(each.recorded["epochs"], each.again["epochs"])
        return found + Found([f"{each.path}: {line}" for line in lines])
    return found + _inside_interval(each) if each.job.stage in EVALUATIONS else found


def _first_difference(each: Rederived, left_out: Collection[str]) -> list[str]:
    since = () if "monitor" in each.recorded else ("monitor",)  # params may ask for one that they did not ask for then
    recorded, again = (_result(record, {*left_out, *since}) for record in (each.recorded, each.again))
    for key, was, now in differences(recorded, again):
        return [f"{each.path}: {key} {_short(was)} was recorded, {_short(now)} came again"]
    return []


def _result(record: dict[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """Return all that a record says but its circumstances, those of its epochs too, and its seal, which follows."""
    kept = {key: value for key, value in record.items() if key not in {*CIRCUMSTANCES, "seal", *left_out}}
    if "predictions" in kept:
        kept["predictions"] = _decoded(record).tolist()  # as text they depend on the version of zlib, too
    if "epochs" in kept:
        kept["epochs"] = {
            number: {key: value for key, value in epoch.items() if key != "seconds"}
            for number, epoch in enumerate(kept["epochs"])
        }
    return kept


def _decoded(record: dict[str, Any]) -> np.ndarray:
    try:
        return decode(record["predictions"], record["n"])
    except UserError:
        return np.zeros(0, int)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _classes(each: Rederived, limit: float) -> Found:
    """Compare the class of each test image, and the top-5 accuracy, with the logits that came again."""
    logits = np.load(each.logits).astype(float)
    recorded, again = (_decoded(record) for record in (each.recorded, each.again))
    if len(recorded) != len(logits):
        return Found([f"{each.path}: no predictions of {len(logits)} images were recorded"])
    wrong = []
    if images := unexplained(recorded, logits, limit).tolist():
        what = f"{len(images)} of {len(logits)} images have a class recorded that is far from the likeliest here"
        wrong.append(f"{each.path}: {what}: image {images[0]} class {recorded[images[0]]}, here {again[images[0]]}")
    found = Found(wrong, len(logits), int((recorded != again).sum()))
    return found if each.recorded["top5"] is None else found + _top5(each, logits, limit)


def _top5(each: Rederived, logits: np.ndarray, limit: float) -> Found:
    assert isinstance(each.job, RunStage)
    labels, top5 = np.load(each.folder / each.job.run.data.folder / "test_labels.npy"), each.recorded["top5"]
    low, high = top5_bounds(labels, logits, limit)
    outside = f"{each.path}: top-5 {top5:.2f} was recorded, {low:.2f} to {high:.2f} came again"
    return Found([] if low <= top5 <= high else [outside])


def _inside_interval(each: Rederived) -> Found:
    (low, high), again = each.recorded["interval"], each.again["top1"]
    recorded, here = (_decoded(record) for record in (each.recorded, each.again))
    differing = int((recorded != here).sum()) if len(recorded) == len(here) else len(here)
    outside = f"{each.path}: top-1 {again:.2f} came again, outside the recorded interval, {low:.2f} to {high:.2f}"
    return Found([] if low <= again <= high else [outside], len(here), differing)
