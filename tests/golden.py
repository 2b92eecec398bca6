"""Replay golden files: training steps and calibrated logits of the official code, in float64.

    python tests/golden.py FILE...

prints, for each file, the largest relative error of any loss, regularizer value, parameter norm or logit, or what it
cannot compare and why. Networks, heads, methods and regularizers are taken by the official names in the file.

The error of a small loss is relative to SMALL_LOSS.
The exit code is 1 when an error is above 1e-8; otherwise 2 when nothing of some file was compared.
"""

import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from us3l.learner import Learner
from us3l.models import BACKBONES, backbone
from us3l.params.training import Batch, Method, Optimizer, Pretrained, Regularizer
from us3l.regularize import coefficients
from us3l.slim import narrow

TOLERANCE = 1e-8

# A loss near zero is a mean of cosines that cancel, whose rounding does not shrink with it: the official code itself
# reproduces byol_mbv2's loss of 0.0021 to 1.3e-8 only. Losses below this one are compared to an absolute 1e-10.
SMALL_LOSS = 0.01

NETWORKS = {f"{prefix}{name.replace('-', '_')}": name for name in BACKBONES for prefix in ("", "us_")}
METHODS = {
    "SimCLR": "simclr",
    "SimCLR_Momentum": "simclr",
    "BYOL": "byol",
    "SimSiam": "simsiam",
    "SimSiam_Momentum": "byol",
}
WITHOUT_TEACHER = {"SimCLR", "SimSiam"}
LOSSES = {"CosineSimilarity": "cosine", "InfoNCEv2": "nt-xent", "InfoNCEv2_distill": "infonce"}
REGULARIZERS = {"GroupReg": "group", "L2Reg": "l2"}
DECAYS = {"linear": "linear", "exp": "exponential"}


class Unsupported(Exception):
    """Why something cannot be compared, in one sentence."""


class Case(dict):
    """An object of a golden file, which says what it lacks."""

    def __missing__(self, key: str) -> Any:
        raise Unsupported(f"there is no {key!r} in it")


def cases(path: Path) -> list[Case]:
    """The cases of a golden file: it holds one, or a list of them."""
    try:
        content = json.loads(path.read_text(), object_hook=Case)
    except OSError as error:
        raise Unsupported(f"it cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise Unsupported(f"it is not JSON ({error})") from None
    found = content if isinstance(content, list) else [content]
    if not found or not all(isinstance(case, Case) for case in found):
        raise Unsupported("it holds no golden case")
    return found


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


def ours(known: dict[str, str], official: str, what: str) -> str:
    """Our name of what the official code calls `official`."""
    if official not in known:
        raise Unsupported(f"the {what} {official} is not supported")
    return known[official]


def our_regularizer(penalty: Case) -> Regularizer:
    return Regularizer(
        kind=ours(REGULARIZERS, penalty["name"], "regularizer"),
        strength=penalty["lambda"],
        alpha=penalty.get("alpha", 0.0),
        decay=ours(DECAYS, penalty.get("decay", "linear"), "decay of the regularizer"),
        groups=penalty.get("groups", 8),
        warmup_epochs=penalty.get("warmup_epochs", 0),
    )


def has_own_head(case: Case) -> bool:
    """Whether distillation has a predictor of its own; one that is shared may be listed under both its names."""
    norms = case["final_param_norms"]
    if METHODS[case["ssl"]] == "simclr":
        return "predictor.0.weight" in norms
    return "predictor_new.0.weight" in norms and norms["predictor_new.0.weight"] != norms["predictor.0.weight"]


def our_run(case: Case) -> Pretrained:
    """The run of params.yaml that a training case stands for."""
    backbone_name = ours(NETWORKS, case["arch"], "architecture")
    method_name = ours(METHODS, case["ssl"], "method")
    if case["distill_feature"]:
        raise Unsupported("feature distillation is not supported")
    has_teacher = case["ssl"] not in WITHOUT_TEACHER
    every_width = case["momentum_update_students"]
    own = has_own_head(case) and (has_teacher or not every_width)
    if own and not case["distill"] and not every_width:
        raise Unsupported("a distillation head without distillation is not supported")
    try:
        return Pretrained(
            dataset="golden",
            backbone=backbone_name,
            method=Method(
                name=method_name,
                base=ours(LOSSES, case["criterion"], "loss"),
                distillation=ours(LOSSES, case["distill_criterion"], "loss") if case["distill"] else None,
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
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Unsupported(f"params.yaml cannot say it ({message})") from None


class Replay:
    """One training case: the learner with the file's weights, and what its steps gave."""

    def __init__(self, case: Case) -> None:
        self.case, self.run = case, our_run(case)
        self.penalties: list[float] = []
        self.learner = Learner(self.run, 3, seed=0, device=torch.device("cpu"), reduce=self._note_penalty)
        self.parameters = self._by_official_name()
        for name, values in self.parameters.items():
            if list(values.shape) != case["param_shapes"][name]:
                raise Unsupported(f"{name} of the shape {case['param_shapes'][name]} is not supported")
            values.copy_(fill(name.replace("encoder_k.", "encoder_q.", 1), tuple(values.shape)))
        self._add_unused()

    def _by_official_name(self) -> dict[str, Tensor]:
        """The values of the online network and of the momentum encoder; later steps change them in place."""
        flat, simclr = self.learner.flat, METHODS[self.case["ssl"]] == "simclr"
        teacher = flat.views(self.learner.momentum_encoder) if self.run.method.momentum is not None else {}
        names = {name: official_name(name, simclr) for name in flat.parameters}
        return {
            **{names[name]: values for name, values in flat.parameters.items()},
            **{names[name].replace("encoder_q.", "encoder_k.", 1): values for name, values in teacher.items()},
        }

    def _add_unused(self) -> None:
        """Predictors of the file that are ours under a second name, or that no width uses: those stay as they are."""
        for name in [name for name in self.case["param_shapes"] if name not in self.parameters]:
            if not name.startswith("predictor"):
                raise Unsupported(f"a network with {name} is not supported")
            twin = name.replace("predictor_new.", "predictor.")
            if twin in self.parameters and not has_own_head(self.case):
                self.parameters[name] = self.parameters[twin]
            elif self.run.regularizer:
                raise Unsupported("a regularizer on a predictor that no width uses is not supported")
            else:
                self.parameters[name] = fill(name, tuple(self.case["param_shapes"][name]))

    def _note_penalty(self, gradients: Tensor) -> None:
        """The learner calls this between the backward pass and the update of each width."""
        if self.run.regularizer:
            full_width = next(self.widths) == 1.0
            shapes, epoch, epochs = self.learner.flat.shapes, self.case["epoch"], self.run.epochs
            strengths = coefficients(shapes, self.run.regularizer, epoch, epochs, full_width)
            parameters = self.learner.flat.parameters.items()
            self.penalties.append(sum(float((strengths[name] * p**2).sum()) for name, p in parameters))

    def errors(self) -> Iterator[float]:
        """The relative error of every loss, penalty and parameter norm."""
        case = self.case
        shape = (case["batch_size"], 3, case["image_size"], case["image_size"])
        for index, expected in enumerate(case["steps"]):
            self.widths = iter(expected["widths"])
            views = tuple(normal(f"{case['case']}/step{index}/view{view}", shape) for view in (0, 1))
            results = self.learner.step([views], expected["widths"], case["epoch"], case["lr"])
            for own, loss in zip(results[:, 0].tolist(), expected["loss"], strict=True):
                yield relative_error(own, loss, SMALL_LOSS)
        official = [value for step in case["steps"] for value in step["regularizer"] or []]
        for own, penalty in zip(self.penalties, official, strict=True):
            yield relative_error(own, penalty)
        for name, expected in case["final_param_norms"].items():
            yield relative_error(float(self.parameters[name].norm()), expected)


def relative_error(own: float, official: float, small: float = 1e-12) -> float:
    """Relative to the official number, or to `small` where that is larger."""
    return abs(own - official) / max(abs(official), small)


def calibrated_errors(case: Case) -> Iterator[float]:
    """The relative error of the logits of a narrow network after its calibration on three batches."""
    arch, size = case["arch"], case["image_size"]
    name = ours(NETWORKS, arch, "architecture")
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
    official = [x for row in json_rows(case) for x in row]
    for own, logit in zip(logits[:, :5].flatten().tolist(), official, strict=True):
        yield relative_error(own, logit)
    yield relative_error(float(logits.norm()), case["logits_norm"])


def json_rows(case: Case) -> list[list[float]]:
    """The file holds these numbers as a list, or as the text of one."""
    rows = case["logits_first5"]
    return json.loads(rows) if isinstance(rows, str) else rows


def replay(path: Path) -> float | None:
    """Print and return the largest relative error in a file; None when nothing of it could be compared."""
    errors, reasons = [], []
    try:
        found = cases(path)
    except Unsupported as reason:
        found, reasons = [], [str(reason)]
    for case in found:
        try:
            errors += list(calibrated_errors(case) if "logits_first5" in case else Replay(case).errors())
        except Unsupported as reason:
            reasons.append(str(reason))
    for reason in dict.fromkeys(reasons):
        print(f"{path}: skipped: {reason}")
    if not errors:
        return None
    largest = float(torch.tensor(errors).max())
    print(f"{path.name}: largest relative error {largest:.2e} of {len(errors)} numbers")
    return largest


def main(paths: list[str]) -> int:
    torch.set_default_dtype(torch.float64)
    if not paths:
        print("give the golden files to replay: python tests/golden.py FILE...", file=sys.stderr)
        return 2
    errors = [replay(Path(path)) for path in paths]
    if any(error is not None and not error <= TOLERANCE for error in errors):
        return 1
    return 2 if None in errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
