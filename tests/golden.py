"""Replay golden files: training steps and calibrated logits of the official code, in float64.

    python tests/golden.py FILE...

prints, for each file, the largest relative error of any loss, regularizer value, parameter norm or logit; the exit code
is 1 when one is above 1e-8. Networks, heads, methods and regularizers are taken by the official names in the file.
"""

import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from us3l.learner import Learner
from us3l.models import BACKBONES, backbone
from us3l.params import Batch, Method, Optimizer, Pretrained, Regularizer, Sampling
from us3l.regularize import coefficients
from us3l.slim import narrow

TOLERANCE = 1e-8

METHODS = {"SimCLR": "simclr", "SimCLR_Momentum": "simclr", "BYOL": "byol", "SimSiam": "simsiam", "SimSiam_Momentum": "byol"}
LOSSES = {"CosineSimilarity": "cosine", "InfoNCEv2": "nt-xent", "InfoNCEv2_distill": "infonce"}
WITHOUT_TEACHER = {"SimCLR", "SimSiam"}


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    values = normal(name, shape)
    if len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def official_name(name: str, simclr: bool) -> str:
    """The official name of one of our parameters; SimCLR's `predictor` is the head of its distillation."""
    if name.startswith("backbone."):
        return name.replace("backbone.", "encoder_q.", 1)
    if name.startswith("projector."):
        return name.replace("projector.", "encoder_q.fc.", 1)
    return name.replace("distillation_predictor", "predictor" if simclr else "predictor_new")


def ours(known: dict[str, str], official: str) -> str:
    """Our name of what the official code calls `official`."""
    if official not in known:
        raise Unsupported(official)
    return known[official]


def our_backbone(arch: str) -> str:
    name = arch.removeprefix("us_").replace("_", "-")
    return ours({name: name for name in BACKBONES}, name)


def our_regularizer(penalty: dict[str, Any]) -> Regularizer:
    return Regularizer(
        kind=ours({"GroupReg": "group", "L2Reg": "l2"}, penalty["name"]),
        strength=penalty["lambda"],
        alpha=penalty.get("alpha", 0.0),
        decay={"linear": "linear", "exp": "exponential"}[penalty.get("decay", "linear")],
        groups=penalty.get("groups", 8),
        warmup_epochs=penalty.get("warmup_epochs", 0),
    )


def our_run(case: dict[str, Any]) -> Pretrained:
    """The run of params.yaml that a training case stands for."""
    ssl = case["ssl"]
    has_teacher = ssl not in ("SimCLR", "SimSiam")
    every_width = case["momentum_update_students"]
    own_head = "predictor" if ours(METHODS, ssl) == "simclr" else "predictor_new"
    own = f"{own_head}.0.weight" in case["param_shapes"] and (has_teacher or not every_width)
    return Pretrained(
        dataset="golden",
        backbone=our_backbone(case["arch"]),
        method=Method(
            name=ours(METHODS, ssl),
            base=ours(LOSSES, case["criterion"]),
            distillation=ours(LOSSES, case["distill_criterion"]) if case["distill"] else None,
            distillation_head="own" if own else "shared",
            momentum=case["ema_momentum"] if has_teacher else None,
            momentum_update="every-width" if has_teacher and every_width else "widest",
            temperature=case["temperature"],
            hidden=case["hidden_dim"],
            output=case["dim"],
        ),
        epochs=case["epochs"],
        batch=Batch(size=case["batch_size"]),
        optimizer=Optimizer(lr=case["lr"], momentum=case["sgd_momentum"], weight_decay=case["weight_decay"]),
        regularizer=case["regularizer"] and our_regularizer(case["regularizer"]),
    )


class Unsupported(Exception):
    """The file is about a network, method or loss that is not built."""


class Replay:
    """One training case: the learner with the file's weights, and what its steps gave."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.run = case, our_run(case)
        self.penalties: list[float] = []
        self.learner = Learner(self.run, 3, seed=0, device=torch.device("cpu"), reduce=self._note_penalty)
        simclr = METHODS[case["ssl"]] == "simclr"
        self.names = {name: official_name(name, simclr) for name in self.learner.flat.parameters}
        for name, values in self.learner.flat.parameters.items():
            values.copy_(self._filled(self.names[name]))
        self.learner.momentum_encoder.copy_(self.learner.flat.values[: len(self.learner.momentum_encoder)])

    def _filled(self, official: str) -> Tensor:
        return fill(official, tuple(self.case["param_shapes"][official]))

    def _note_penalty(self, gradients: Tensor) -> None:
        """The learner calls this between the backward pass and the update of each width."""
        if self.run.regularizer:
            full_width = next(self.widths) == 1.0
            shapes, epoch, epochs = self.learner.flat.shapes, self.case["epoch"], self.run.epochs
            strengths = coefficients(shapes, self.run.regularizer, epoch, epochs, full_width)
            parameters = self.learner.flat.parameters.items()
            self.penalties.append(sum(float((strengths[name] * p**2).sum()) for name, p in parameters))

    def pairs(self) -> Iterator[tuple[float, float]]:
        """(ours, official) for every loss, penalty and parameter norm."""
        case = self.case
        shape = (case["batch_size"], 3, case["image_size"], case["image_size"])
        for index, expected in enumerate(case["steps"]):
            self.widths = iter(expected["widths"])
            views = tuple(normal(f"{case['case']}/step{index}/view{view}", shape) for view in (0, 1))
            results = self.learner.step([views], expected["widths"], case["epoch"], case["lr"])
            yield from zip(results[:, 0].tolist(), expected["loss"], strict=True)
        official = [value for step in case["steps"] for value in step["regularizer"] or []]
        yield from zip(self.penalties, official, strict=True)
        norms = self._norms()
        for name, expected in case["final_param_norms"].items():
            yield norms[name], expected

    def _norms(self) -> dict[str, float]:
        """The norm of every official parameter; one that no step of ours uses keeps the value it was filled with."""
        teacher = self.learner.flat.views(self.learner.momentum_encoder)
        norms = {self.names[name]: p for name, p in self.learner.flat.parameters.items()}
        norms |= {self.names[name].replace("encoder_q.", "encoder_k."): p for name, p in teacher.items()}
        return {name: float((norms[name] if name in norms else self._filled(name)).norm()) for name in self.case["param_shapes"]}


def calibrated_pairs(case: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """(ours, official) for the logits of a narrow network after its calibration on three batches."""
    name, arch, size = our_backbone(case["arch"]), case["arch"], case["image_size"]
    widest = backbone(name, 1.0, 3)
    weights = {key: fill(f"encoder_q.{key}", tuple(p.shape)) for key, p in widest.named_parameters()}
    network = narrow(weights, backbone(name, case["width"], 3)).train()
    head = nn.Linear(network.num_features, case["num_classes"])
    head.weight.data = fill("linear_fc.weight", (case["num_classes"], widest.num_features))[:, : network.num_features]
    head.bias.data = fill("linear_fc.bias", (case["num_classes"],))
    with torch.no_grad():
        for batch in range(3):
            network(normal(f"calibrate/{arch}/batch{batch}", (8, 3, size, size)))
        logits = head(network.eval()(normal(f"calibrate/{arch}/eval", (4, 3, size, size))))
    yield from zip(logits[:, :5].flatten().tolist(), [x for row in json_rows(case) for x in row], strict=True)
    yield float(logits.norm()), case["logits_norm"]


def json_rows(case: dict[str, Any]) -> list[list[float]]:
    """The file holds these numbers as a list, or as the text of one."""
    rows = case["logits_first5"]
    return json.loads(rows) if isinstance(rows, str) else rows


def replay(path: Path) -> float | None:
    """Print and return the largest relative error in a file; None when the file holds nothing that is supported."""
    content = json.loads(path.read_text())
    errors = []
    for case in content if isinstance(content, list) else [content]:
        try:
            pairs = list(calibrated_pairs(case) if isinstance(content, list) else Replay(case).pairs())
        except Unsupported as unknown:
            print(f"{path.name}: skipped, {unknown} is not supported")
            continue
        errors += [abs(own - official) / max(abs(official), 1e-12) for own, official in pairs]
    if errors:
        print(f"{path.name}: largest relative error {max(errors):.2e} of {len(errors)} numbers")
    return max(errors, default=None)


def main(paths: list[str]) -> int:
    torch.set_default_dtype(torch.float64)
    errors = [replay(Path(path)) for path in paths]
    if any(error is None for error in errors) or not errors:
        print("nothing was compared: give golden files about supported networks and methods", file=sys.stderr)
        return 2
    return int(any(not error <= TOLERANCE for error in errors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
