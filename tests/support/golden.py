"""Replay golden files: training steps and calibrated logits of the official code, in float64.

    python tests/golden.py FILE...

prints, for each file, the largest relative error of any loss, regularizer value, parameter norm or logit, or what it
cannot compare and why. Networks, heads, methods and regularizers are taken by the official names in the file.

The error of a small loss is relative to SMALL_LOSS.
The exit code is 1 when an error is above 1e-8; otherwise 2 when nothing of some file was compared.
"""

import json
import math
import re
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from us3l.data.stream import Shard
from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.registry import BUILT_IN
from us3l.models.backbones.vit import positions
from us3l.models.folding import fold_batch_norms
from us3l.models.meta import on_meta_device
from us3l.models.slimmable import narrow
from us3l.params.method import READ_BY, FeatureDistillation, Method, Projector
from us3l.params.optimizer import Regularizer, TrainingOptimizer
from us3l.params.runs import Batch, PretrainRun
from us3l.params.sampling import FixedWidths, Sampling
from us3l.training.build import build_train_step
from us3l.training.optimizers import sgd_step
from us3l.training.regularizer import coefficients
from us3l.utils.distributed import World

TOLERANCE = 1e-8

# A loss near zero is a mean of cosines that cancel, whose rounding does not shrink with it: the official code itself
# reproduces byol_mbv2's loss of 0.0021 to 1.3e-8 only. Losses below this one are compared to an absolute 1e-10.
SMALL_LOSS = 0.01

NETWORKS = {f"{prefix}{name.replace('-', '_')}": name for name in BUILT_IN for prefix in ("", "us_", "s_")}
SWITCHABLE = [1.0, 0.75, 0.5, 0.25]  # the widths that have BatchNorms of their own in networks called s_
METHODS = {
    "SimCLR": "simclr",
    "SimCLR_Momentum": "simclr",
    "BYOL": "byol",
    "SimSiam": "simsiam",
    "SimSiam_Momentum": "simsiam",
    "MoCo_USViT": "moco-v3",
}
WITHOUT_TEACHER = {"SimCLR", "SimSiam"}
LOSSES = {
    "CosineSimilarity": "cosine",
    "InfoNCEv2": "nt-xent",
    "InfoNCEv2_distill": "infonce",
    "InfoNCEv2MSE_distill": "infonce+cosine",
    "InfoNCEv2_RKDA_distill": "infonce+rkd-angle",
    "KLLoss": "kl",
    "MSELoss": "mse",
    "RKDALoss": "rkd-angle",
    "RKDDLoss": "rkd-distance",
    "SimMatrixLoss": "similarity-matrix",
    "SimMatrixMSELoss": "similarity-matrix-mse",
    "contrastive": "contrastive",
}
FEATURE_LOSSES = {
    "MSELoss": "mse",
    "CosineSimilarity": "cosine",
    "AMSELoss": "attention-spatial",
    "CMSELoss": "attention-channel",
}
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


@cache
def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    values = normal(name, shape)
    if len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def official_name(name: str, ssl: str) -> str:
    """The official name of one of our parameters; SimCLR's `predictor` is the head of its distillation."""
    encoder, projector = ("base_encoder", "head") if ssl == "MoCo_USViT" else ("encoder_q", "fc")
    if name.startswith("backbone."):
        return name.replace("backbone.", f"{encoder}.", 1)
    if name.startswith("projector."):
        return name.replace("projector.", f"{encoder}.{projector}.", 1)
    return name.replace("distillation_predictor", "predictor" if METHODS[ssl] == "simclr" else "predictor_new")


def online_name(name: str) -> str:
    """Whose values a parameter of the momentum encoder takes."""
    return name.replace("encoder_k.", "encoder_q.", 1).replace("momentum_encoder.", "base_encoder.", 1)


def momentum_name(name: str) -> str:
    return name.replace("encoder_q.", "encoder_k.", 1).replace("base_encoder.", "momentum_encoder.", 1)


def position_table(tokens: int, size: int) -> Tensor:
    """The official pos_embed [1, 1 + patches, size]: nothing for the class token, then the patches of a square."""
    side = math.isqrt(tokens - 1)
    table = positions(side, side, size, torch.get_default_dtype(), torch.device("cpu"))
    return torch.cat((torch.zeros(1, size), table.flatten(0, 1)))[None]


def ours(known: dict[str, str], official: str, what: str) -> str:
    """Our name of what the official code calls `official`."""
    if official not in known:
        raise Unsupported(f"the {what} {official} is not supported")
    return known[official]


def our_regularizer(penalty: Case) -> Regularizer:
    kind, strength = ours(REGULARIZERS, penalty["name"], "regularizer"), penalty["lambda"]
    if kind == "l2":  # the official file states groups that the official l2 does not read
        return Regularizer(kind=kind, strength=strength)
    return Regularizer(
        kind=kind,
        strength=strength,
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


def our_run(case: Case) -> PretrainRun:
    """The run of params.yaml that a training case stands for."""
    backbone_name = ours(NETWORKS, case["arch"], "architecture")
    method_name = ours(METHODS, case["ssl"], "method")
    has_teacher = case["ssl"] not in WITHOUT_TEACHER
    every_width = case["momentum_update_students"]
    own = has_own_head(case) and (has_teacher or not every_width)
    if own and not case["distill"] and not every_width:
        raise Unsupported("a distillation head without distillation is not supported")
    base = ours(LOSSES, case["criterion"], "loss")
    distillation = ours(LOSSES, case["distill_criterion"], "loss") if case["distill"] else None
    asked = {*base.split("+"), *(distillation or "").split("+")}
    temperatures = {
        "temperature": case["temperature"],
        "student_temperature": case.get("distill_student_temp", 1.0),
        "teacher_temperature": case.get("distill_teacher_temp", 1.0),
    }
    try:
        return PretrainRun(
            dataset="golden",
            backbone=backbone_name,
            method=Method(
                name=method_name,
                base_loss=base,
                distillation_loss=distillation,
                distillation_strength=case.get("distill_lambda", 1.0) if distillation else 1.0,
                feature_distillation=our_features(case, backbone_name),
                distillation_head="separate" if own or case["ssl"] == "SimSiam" else "shared",
                momentum=case["ema_momentum"] if has_teacher else None,
                momentum_update="every-width" if has_teacher and every_width else "widest",
                **{key: value for key, value in temperatures.items() if asked & set(READ_BY[key])},
                projector=Projector(hidden=case["hidden_dim"], output=case["dim"]),
            ),
            epochs=case["epochs"],
            batch=Batch(size=case["batch_size"]),
            optimizer=our_optimizer(case),
            regularizer=case["regularizer"] and our_regularizer(case["regularizer"]),
            sampling=FixedWidths(widths=SWITCHABLE) if case["arch"].startswith("s_") else Sampling(),
        )
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Unsupported(f"params.yaml cannot say it ({message})") from None


def our_optimizer(case: Case) -> TrainingOptimizer:
    if "optimizer" in case:
        return TrainingOptimizer(kind="adamw", lr=case["lr"], weight_decay=case["weight_decay"])
    return TrainingOptimizer(lr=case["lr"], momentum=case["sgd_momentum"], weight_decay=case["weight_decay"])


def our_features(case: Case, name: str) -> FeatureDistillation | None:
    """The file has the layers in the names of their projections, with _ for each dot."""
    if not case["distill_feature"]:
        return None
    widest = on_meta_device(lambda: Backbone(name, 3).build(1.0))
    layers = {layer.replace(".", "_"): layer for layer, _ in widest.named_modules()}
    asked = [key.split(".")[1] for key in case["param_shapes"] if key.startswith("proj_conv.")]
    return FeatureDistillation(
        layers=[ours(layers, layer, "layer") for layer in asked],
        loss=ours(FEATURE_LOSSES, case.get("distill_feature_criterion", "MSELoss"), "loss of feature maps"),
        strength=case.get("distill_feature_lambda", 1.0),
    )


def as_training(case: Case) -> Case:
    """A case of the ViT experiments in the terms of the others."""
    if "mlp_dim" not in case:
        return case
    if not case["stop_grad_patch_embed"]:
        raise Unsupported("a patch embedding that is trained is not supported")
    optimizer = re.fullmatch(r"AdamW lr (\S+) weight_decay (\S+) .*", case["optimizer"])
    if not optimizer:
        raise Unsupported(f"the optimizer {case['optimizer']!r} is not supported")
    given = {
        "ssl": "MoCo_USViT",
        "criterion": "contrastive",
        "distill": True,
        "distill_criterion": "contrastive",
        "distill_feature": False,
        "momentum_update_students": False,
        "hidden_dim": case["mlp_dim"],
        "epochs": 1,
        "epoch": 0,
        "lr": float(optimizer[1]),
        "weight_decay": float(optimizer[2]),
        "regularizer": None,
    }
    return Case(given | case)


class Replay:
    """One training case: the training step with the file's weights, and what its steps gave."""

    def __init__(self, case: Case) -> None:
        self.case, self.run = case, our_run(case)
        self.unused: dict[str, tuple[Tensor, Tensor]] = {}  # what no width uses, with its velocity
        self.penalties: list[float] = []
        backbone, world = Backbone(self.run.backbone, 3), World(0, 1, torch.device("cpu"))
        self.train_step = build_train_step(self.run, backbone, classes=0, seed=0, world=world)
        self.train_step.all_reduce_ = self.train_step.teacher.all_reduce_ = self._note_penalty
        self.parameters = self._by_official_name()
        for name, values in self.parameters.items():
            if list(values.shape) != case["param_shapes"][name]:
                raise Unsupported(f"{name} of the shape {case['param_shapes'][name]} is not supported")
            values.copy_(fill(online_name(name), tuple(values.shape)))
        self._add_unused()

    def _by_official_name(self) -> dict[str, Tensor]:
        """The values of the online network and of the momentum encoder; later steps change them in place."""
        weights, method = self.train_step.student.weights, self.run.method
        teacher = weights.views(self.train_step.teacher.momentum_encoder) if method.momentum is not None else {}
        names = {name: official_name(self._switchable(name), self.case["ssl"]) for name in weights.parameters}
        for index, layer in enumerate(method.feature_distillation.layers if method.feature_distillation else []):
            names[f"feature_projections.{index}.weight"] = f"proj_conv.{layer.replace('.', '_')}.weight"
        return {
            **{names[name]: values for name, values in weights.parameters.items()},
            **{momentum_name(names[name]): values for name, values in teacher.items()},
        }

    def _switchable(self, name: str) -> str:
        """In a network called s_ the official BatchNorms are numbered by width."""
        name, _, width = name.partition("@")
        if (
            name.startswith("backbone.")
            and self.run.sampling.switchable_bn_widths
            and name in self.train_step.student.batch_norms
        ):
            path, own = name.rsplit(".", 1)
            return f"{path}.bn.{SWITCHABLE.index(float(width or 1))}.{own}"
        return name

    def _add_unused(self) -> None:
        """What the file has besides: position tables, and predictors that have a second name or no use."""
        for name in [name for name in self.case["param_shapes"] if name not in self.parameters]:
            shape = tuple(self.case["param_shapes"][name])
            twin = name.replace("predictor_new.", "predictor.")
            if name.endswith("pos_embed"):
                self.parameters[name] = position_table(*shape[1:])
            elif not name.startswith("predictor"):
                raise Unsupported(f"a network with {name} is not supported")
            elif twin in self.parameters and not has_own_head(self.case):
                self.parameters[name] = self.parameters[twin]
            else:
                self.parameters[name] = fill(name, shape)
                self.unused[name] = self.parameters[name], torch.zeros(shape)

    def _note_penalty(self, gradients: Tensor) -> None:
        """The training step calls this between the backward pass and the update of each width."""
        if not self.run.regularizer:
            return
        settings = self.run.regularizer, self.case["epoch"], self.run.epochs, next(self.widths) == 1.0
        weights = self.train_step.student.weights
        penalized = {name: p for name, p in weights.parameters.items() if not name.startswith("feature_projections.")}
        penalized |= {name: p for name, (p, _) in self.unused.items()}
        strengths = coefficients({name: p.shape for name, p in penalized.items()}, *settings)
        self.penalties.append(sum(float((strengths[name] * p**2).sum()) for name, p in penalized.items()))
        for name, (p, velocity) in self.unused.items():
            sgd_step(p, 2 * strengths[name] * p, velocity, self.case["lr"], self.run.optimizer.momentum)

    def errors(self) -> Iterator[float]:
        """The relative error of every loss, penalty and parameter norm."""
        case = self.case
        shape = (case["batch_size"], 3, case["image_size"], case["image_size"])
        for index, expected in enumerate(case["steps"]):
            self.widths = iter(expected["widths"])
            views = tuple(normal(f"{case['case']}/step{index}/view{view}", shape) for view in (0, 1))
            results = self.train_step([Shard(views)], expected["widths"], case["epoch"], case["lr"])
            for own, loss in zip(results[:, 0].tolist(), expected["loss"], strict=True):
                yield relative_error(own, loss, SMALL_LOSS)
        official = [value for step in case["steps"] for value in step.get("regularizer") or []]
        for own, penalty in zip(self.penalties, official, strict=True):
            yield relative_error(own, penalty)
        for name, expected in case["final_param_norms"].items():
            yield relative_error(float(self.parameters[name].norm()), expected)


def relative_error(own: float, official: float, small: float = 1e-12) -> float:
    """Relative to the official number, or to `small` where that is larger."""
    return abs(own - official) / max(abs(official), small)


def calibrated_errors(case: Case) -> Iterator[float]:
    """The relative error of the logits of a narrow network, folded after its calibration on three batches."""
    arch, size = case["arch"], case["image_size"]
    name = ours(NETWORKS, arch, "architecture")
    widest = on_meta_device(lambda: Backbone(name, 3).build(1.0))
    weights = {key: fill(f"encoder_q.{key}", tuple(p.shape)) for key, p in widest.named_parameters()}
    network = narrow(weights, Backbone(name, 3).build(case["width"])).train()
    head = nn.Linear(network.num_features, case["num_classes"])
    head.weight.data = fill("linear_fc.weight", (case["num_classes"], widest.num_features))[:, : network.num_features]
    head.bias.data = fill("linear_fc.bias", (case["num_classes"],))
    with torch.no_grad():
        for batch in range(3):
            network(normal(f"calibrate/{arch}/batch{batch}", (8, 3, size, size)))
        logits = head(fold_batch_norms(network)(normal(f"calibrate/{arch}/eval", (4, 3, size, size))))
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
            errors += list(calibrated_errors(case) if "logits_first5" in case else Replay(as_training(case)).errors())
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
