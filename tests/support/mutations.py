"""Edits of the code, one at a time, and what `us3l requalify` says of each: `python tests/support/mutations.py`.

Mutations change results, refactorings do not. The program writes docs/probes.md, the list of both with the verdicts.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from edits import EQUIVALENT, PACKAGE, Edit, apply, as_code
from forks import fork_server
from project import ROOT, Project, params
from tiny import draw_images

from us3l.params.reading import load
from us3l.pipeline.plan.plan import Plan, jobs

CORES = 2
BITWISE, ROUNDING, DIFFERS, NOTHING, FAILS = "bitwise", "within rounding", "differs", "nothing to probe", "fails"

Content = dict[str, Any]
S, T = TypeVar("S"), TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """A small project: what its run, further runs, protocol, and views say besides `project.params`."""

    run: Content
    protocol: Content = field(default_factory=dict)
    views: Content = field(default_factory=dict)
    others: Content = field(default_factory=dict)
    pictures: bool = False  # noise in colour instead of the digits

    def params(self) -> Content:
        """Return the content of its params file: few images, so that its results take seconds."""
        content = params(**self.run)
        [data], [study] = content["datasets"].values(), content["studies"].values()
        data["source"] = FOLDER if self.pictures else {"kind": "digits", "test_fraction": 0.8}
        data["views"] = data["views"] | self.views
        protocol = self.protocol or {"kind": "linear", "optimizer": {"lr": 1.0, "weight_decay": 1e-4}}
        content["protocols"]["quick"] = protocol if protocol["kind"] == "knn" else TRAINED | protocol
        study["runs"] = {"us3l": study["runs"]["us3l"], **self.others}
        return content


HEADS = {"hidden": 16, "output": 8}
BASE = {"momentum": 0.99, "projector": HEADS}
ALONE = {"momentum": None, "projector": HEADS}
FOLDER = {"kind": "folder", "train": "train", "test": "test", "image_size": 16}
TRAINED = {"epochs": 4, "batch_size": 64}
LAYERS = ["layer1", "layer2"]
SMALL = {"dataset": "digits", "backbone": "small-resnet", "resources": {"gpus": 0}}
CROP = {"resized_crop": {"size": 8, "scale": [0.5, 1.0]}, "flip": 0.5}
MOVED = {"affine": {"degrees": 10.0, "translate": 0.2}}
BLURRED = {"resized_crop": {"size": 8, "interpolation": "bicubic"}, "blur": {"kernel_size": 3, "probability": 1.0}}
LARGE = {"resized_crop": {"size": 32}}
COLOURS = {
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8},
    "grayscale": 0.2,
    "solarize": {},
}

VARIANTS = {
    "simclr": Variant({"epochs": 6, "method": {"name": "simclr", "base_loss": "infonce", **BASE}}),
    "byol": Variant(
        {
            "method": {"name": "byol", "base_loss": "cosine", "momentum_schedule": "cosine", **BASE},
            "epochs": 6,
            "batch": {"size": 96, "shards": 3},
            "optimizer": {"lr": 0.05, "weight_decay": 1e-4, "warmup_epochs": 2, "rate": "step"},
            "regularizer": None,
        },
        protocol={"kind": "knn", "neighbours": 20},
        views={"pretrain": [BLURRED, CROP]},
    ),
    "simsiam": Variant(
        {
            "method": {"name": "simsiam", "base_loss": "cosine", "distillation_loss": "mse", **ALONE},
            "epochs": 8,
            "optimizer": {"lr": 0.05, "schedule": "multistep", "milestones": [3, 5]},
            "regularizer": {"kind": "l2", "strength": 1e-4},
        },
        protocol={
            "kind": "features-linear",
            "optimizer": {"lr": 1.0, "weight_decay": 1e-4, "trust_coefficient": 0.01},
        },
        views={"pretrain": [MOVED, MOVED]},
    ),
    "moco": Variant(
        {
            "method": {
                "name": "moco",
                "base_loss": "queue",
                "distillation_loss": "queue",
                "temperature": 0.2,
                "queue": 256,
                **BASE,
            },
            "sampling": {"schedule": "constant"},
            "regularizer": {"kind": "l1-batchnorm", "strength": 1e-4, "warmup_epochs": 1},
        },
        protocol={"kind": "finetune", "classifier_lr": 0.5, "optimizer": {"lr": 0.05, "weight_decay": 1e-4}},
    ),
    "moco-v3": Variant(
        {
            "backbone": "vit-tiny",
            "method": {
                "name": "moco-v3",
                "base_loss": "contrastive",
                "distillation_loss": "contrastive",
                "temperature": 0.2,
                **BASE,
            },
            "epochs": 2,
            "batch": {"size": 128},
            "optimizer": {"kind": "adamw", "lr": 1e-3},
            "regularizer": {"kind": "group", "by": "input-feature", "strength": 0.05},
        },
        protocol={"kind": "knn", "neighbours": 20},
        views={"pretrain": [LARGE, LARGE], "linear": LARGE, "test": {"resize": 32}},
    ),
    "dino": Variant(
        {
            "method": {
                "name": "simclr",
                "base_loss": "dino",
                "distillation_loss": "dino",
                "teacher_temperature": 0.07,
                **BASE,
            },
            "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1},
            "regularizer": None,
        },
        views={"linear": MOVED},
    ),
    "seed": Variant(
        {
            "method": {
                "name": "seed",
                "base_loss": "queue-soft-labels",
                "distillation_loss": "queue-soft-labels",
                "teacher": "teacher",
                "queue": 128,
                **ALONE,
            },
            "regularizer": {
                "kind": "group",
                "strength": 5e-5,
                "decay": "exponential",
                "alpha": 0.5,
                "warmup_epochs": 1,
            },
        },
        protocol={"kind": "knn", "neighbours": 20},
        others={
            "byol": {
                **SMALL,
                "method": {"name": "byol", "base_loss": "cosine", "teacher": "teacher", **ALONE},
                "epochs": 1,
                "batch": {"size": 128},
                "optimizer": {"lr": 0.05},
            },
            "teacher": {
                **SMALL,
                "method": {"name": "simclr", "base_loss": "nt-xent", "distillation_loss": None, **ALONE},
                "epochs": 1,
                "batch": {"size": 128},
                "optimizer": {"lr": 0.05},
                "sampling": 1.0,
            },
        },
    ),
    "relations": Variant(
        {
            "method": {
                "name": "byol",
                "base_loss": "kl+rkd-distance+rkd-angle",
                "distillation_loss": "similarity-matrix+similarity-matrix-mse",
                "distillation_strength": 0.5,
                "feature_distillation": {"layers": LAYERS, "loss": "attention-spatial", "strength": 50.0},
                **BASE,
            },
            "sampling": {"schedule": "constant"},
        },
        protocol={"kind": "knn", "neighbours": 20},
    ),
    "switchable": Variant(
        {
            "method": {
                "name": "simclr",
                "base_loss": "nt-xent",
                "feature_distillation": {"layers": LAYERS, "loss": "attention-channel", "strength": 50.0},
                **ALONE,
            },
            "sampling": {"widths": [0.25, 0.5, 1.0]},
            "regularizer": {"kind": "group-l1-batchnorm", "strength": 1e-3, "warmup_epochs": 1},
        },
        protocol={"kind": "knn", "neighbours": 20},
    ),
    "uniform": Variant(
        {
            "method": {"name": "byol", "base_loss": "cosine", "distillation_loss": None, **BASE}
            | {"momentum_update": "every-width"},
            "sampling": {"rule": "uniform", "schedule": "constant"},
            "optimizer": {"lr": 0.05, "weight_decay": 1e-4, "schedule": "constant"},
            "regularizer": None,
        },
        protocol={"kind": "knn", "neighbours": 20},
    ),
    "features": Variant(
        {
            "method": {
                "name": "simsiam",
                "base_loss": "cosine",
                "feature_distillation": {"layers": LAYERS, "loss": "cosine"},
                **BASE,
            },
            "optimizer": {"kind": "adamw", "lr": 1e-3},
            "regularizer": {"kind": "l2", "strength": 1e-4},
        },
        protocol={"kind": "knn", "neighbours": 20},
    ),
    "supervised": Variant(
        {
            "method": {
                "name": "supervised",
                "base_loss": "cross-entropy",
                "distillation_loss": "soft-labels",
                "momentum": None,
            },
            "optimizer": {"lr": 0.05, "weight_decay": 1e-4},
            "regularizer": None,
        },
        protocol={"kind": "finetune", "optimizer": {"lr": 0.05}},
        others={
            "pruned": {"kind": "prune", "weights_from": "us3l", "criterion": "filters", "resources": {"gpus": 0}},
            "untrained": {**SMALL, "kind": "untrained"},
        },
    ),
    "pictures": Variant(
        {
            "backbone": "cifar-mobilenetv2",
            "method": {"name": "simclr", "base_loss": "infonce", **BASE},
            "batch": {"size": 8, "shards": 2},
        },
        protocol={"kind": "knn", "neighbours": 4},
        views={"normalize": {"mean": [0.3] * 3, "std": [0.4] * 3}, "pretrain": [COLOURS, COLOURS]},
        pictures=True,
    ),
}


@dataclass(frozen=True)
class Judgement:
    """What `us3l requalify` says of an edit: the verdict, and by which number."""

    verdict: str
    by: str
    output: str


Judged = tuple[Edit, Judgement]

# What a line of `us3l requalify` says, the worst first.
PATTERNS = {
    DIFFERS: r"^us3l (\S+) .*: differs, stays out of date: (.*?) was",
    ROUNDING: r"^us3l (\S+) .*: (equal within rounding, at most \S+ apart \(\S+\))$",
    BITWISE: r"^us3l (\S+) .*: equal, bitwise$",
}

INTRODUCTION = """# What probes see

A probe is a small, deterministic piece of a result's own computation: a few training steps in epochs that cover the
schedule, the calibration or evaluation of a few images, or a few images of a data set. Its numbers are kept with the
result; after an edit of the code, `us3l requalify` runs it again, and equal numbers keep the result. It is no proof: it
sees nothing that the piece does not run, such as other hardware or several processes.

A training magnifies rounding: in float32, another order of the same operations may change the third step by half. Its
steps are therefore taken in float64, too, and there the numbers must agree; float32 must be as far from them as before.
AdamW divides gradients by their size, also those that are nothing but rounding: there, another order is a change.

`python tests/support/mutations.py` makes this list: each edit in a copy of the package, judged by the probes of a small
run that uses the code. {changes} of the {mutations} mutations change results, and {caught} were caught.

## Mutations
"""

MUTATIONS = [
    # losses
    Edit("losses/views.py", "teacher[1]), (student[1], teacher[0])", "teacher[0]), (student[1], teacher[1])", "simclr"),
    Edit(
        "losses/embeddings.py",
        "crossed(student, teacher)) / 2\n\n\ndef nt",
        "crossed(student, teacher))\n\n\ndef nt",
        "simclr",
    ),
    Edit(
        "losses/embeddings.py",
        "F.normalize(torch.cat((one, other), dim=-2), dim=-1)",
        "torch.cat((one, other), dim=-2)",
        "simclr",
    ),
    Edit("losses/embeddings.py", 'fill_(float("-inf"))', "fill_(0.0)", "simclr"),
    Edit(
        "losses/embeddings.py",
        "dim=-1).mean() for one, other in crossed(student, teacher)) / 2",
        "dim=-2).mean() for one, other in crossed(student, teacher)) / 2",
        "byol",
    ),
    Edit("losses/embeddings.py", "soft_cross_entropy(one / student", "soft_cross_entropy(one * student", "relations"),
    Edit(
        "losses/embeddings.py",
        "-(targets.detach() *",
        "-(targets *",
        "relations",
        EQUIVALENT + "the targets are detached before",
    ),
    Edit("losses/embeddings.py", "return total(F.mse_loss", "return 2 * total(F.mse_loss", "simsiam"),
    Edit("losses/embeddings.py", "return 2 * temperature *", "return 2 *", "moco-v3"),
    Edit("losses/embeddings.py", "F.normalize(student, dim=1) @", "F.normalize(student, dim=0) @", "moco-v3"),
    Edit(
        "losses/embeddings.py",
        "negatives).flatten(0, -2) / temperature",
        "negatives).flatten(0, -2) * temperature",
        "moco",
    ),
    Edit(
        "losses/embeddings.py",
        "F.normalize(one, dim=-1), F.normalize(own.detach(), dim=-1)",
        "one, F.normalize(own.detach(), dim=-1)",
        "moco",
    ),
    Edit("losses/embeddings.py", "negatives) / teacher_temperature", "negatives) / student_temperature", "seed"),
    Edit("losses/relations.py", "(count * (count - 1))", "count**2", "relations"),
    Edit("losses/relations.py", "embeddings.unsqueeze(-2), dim=-1)", "embeddings.unsqueeze(-2), dim=-2)", "relations"),
    Edit("losses/relations.py", ".square().sum((-2, -1))", ".square().mean((-2, -1))", "relations"),
    Edit("losses/relations.py", "return 50 *", "return 49 *", "relations"),
    Edit(
        "losses/dino.py", "teacher[0] - center, teacher[1] - center", "teacher[0] + center, teacher[1] + center", "dino"
    ),
    Edit("losses/dino.py", "momentum: float = 0.9", "momentum: float = 0.99", "dino"),
    Edit("losses/dino.py", "warmup_epochs: int = 30", "warmup_epochs: int = 31", "dino"),
    Edit(
        "losses/dino.py",
        "if epoch >= warmup_epochs - 1",
        "if epoch >= warmup_epochs",
        "dino",
        EQUIVALENT + "in that epoch both are the final temperature",
    ),
    Edit(
        "losses/feature_maps.py", "maps.sum(1).flatten(1).softmax(1)", "maps.sum(1).flatten(1).softmax(0)", "relations"
    ),
    Edit("losses/feature_maps.py", "maps.sum((2, 3)).softmax(1)", "maps.mean((2, 3)).softmax(1)", "switchable"),
    Edit("losses/feature_maps.py", "return -_mean(", "return _mean(", "features"),
    Edit("losses/feature_maps.py", "/ len(pairs)", "/ 2", "features"),
    Edit(
        "losses/registry.py",
        "F.cross_entropy(s[0].flatten(0, -2), _given(t.labels).flatten())",
        "F.cross_entropy(s[0].flatten(0, -2), _given(t.labels).flatten(), label_smoothing=0.01)",
        "supervised",
    ),
    Edit("losses/registry.py", "t.embeddings[0].softmax(-1)", "s[0].softmax(-1)", "supervised"),
    # step
    Edit("training/step.py", "is_widest = width == widths[0]", "is_widest = width == widths[-1]", "simclr"),
    Edit("training/step.py", '"predictor" if moves_teacher else "distillation_predictor"', '"predictor"', "byol"),
    Edit("training/step.py", "share = len(micro_batch) / self.run.batch.shards", "share = 1.0", "simclr"),
    Edit("training/step.py", "value = method.distillation_strength * loss", "value = loss", "relations"),
    Edit("training/step.py", "method.feature_distillation.strength * feature_loss", "feature_loss", "relations"),
    Edit("training/step.py", "self.with_grad |= decayed", "pass", "features"),
    Edit("training/step.py", "embeddings.shape[2] ** 0.5", "embeddings.shape[1] ** 0.5", "simclr"),
    Edit("training/step.py", "strict=True) if has}", "strict=True) if not has}", "byol"),
    Edit("training/step.py", "self._update(gradients, int(epoch),", "self._update(gradients, round(epoch),", "simclr"),
    # regularizer
    Edit("training/regularizer.py", "clamp(max=groups - 1)", "clamp(max=groups - 2)", "simclr"),
    Edit("training/regularizer.py", "regularizer.alpha, epochs // 2", "regularizer.alpha, epochs // 2 + 1", "simclr"),
    Edit("training/regularizer.py", "1 - alpha * index", "1 - alpha * (index + 1)", "simclr"),
    Edit("training/regularizer.py", "values, value=2)", "values)", "simclr"),
    Edit(
        "training/regularizer.py",
        'full_width and "predictor" in name',
        'not full_width and "predictor" in name',
        "simclr",
    ),
    Edit("training/regularizer.py", "return 0 if len(shape) in (1, 4)", "return 0 if len(shape) == 4", "simclr"),
    Edit("training/regularizer.py", "addcmul_(coefficients, values.sign())", "addcmul_(coefficients, values)", "moco"),
    Edit(
        "training/regularizer.py",
        "warm = epoch < regularizer.warmup_epochs",
        "warm = epoch <= regularizer.warmup_epochs",
        "moco",
    ),
    Edit(
        "training/regularizer.py",
        "regularizer.alpha * index * (not warm)",
        "regularizer.alpha * (index + 1) * (not warm)",
        "switchable",
    ),
    Edit("training/regularizer.py", "alpha**index", "alpha ** (index + 1)", "seed"),
    Edit("training/regularizer.py", "(epoch - regularizer.warmup_epochs) /", "epoch /", "seed"),
    Edit("training/regularizer.py", "return 1 if len(shape) == 2", "return 0 if len(shape) == 2", "moco-v3"),
    Edit(
        "training/regularizer.py",
        "for name in trainable if name in by_name",
        "for name in by_name if name in by_name",
        "simsiam",
    ),
    # sampling
    Edit("training/width_sampling.py", "min(epoch // max(1, epochs // 4), 3)", "epoch * 4 // epochs", "byol"),
    Edit(
        "training/width_sampling.py", "(3 - quarter) * (high - low) / 3", "(3 - quarter) * (high - low) / 4", "simclr"
    ),
    Edit("training/width_sampling.py", "ends = [high, low]", "ends = [high]", "simclr"),
    Edit("training/width_sampling.py", ".tolist()], reverse=True)", ".tolist()])", "simclr"),
    Edit("training/width_sampling.py", "torch.tensor([step])", "torch.tensor([0])", "simclr"),
    Edit(
        "training/width_sampling.py",
        "sorted(sampling.widths, reverse=True)",
        "sorted(sampling.widths[1:], reverse=True)",
        "switchable",
    ),
    Edit("training/width_sampling.py", "Purpose.WIDTHS, epoch", "Purpose.WIDTHS, 0", "uniform"),
    # schedule
    Edit("training/lr_schedule.py", "lr * epoch / optimizer", "lr * (epoch + 1) / optimizer", "byol"),
    Edit(
        "training/lr_schedule.py",
        "epoch < optimizer.warmup_epochs",
        "epoch <= optimizer.warmup_epochs",
        "byol",
        EQUIVALENT + "at the end of the warm-up both rates are the largest one",
    ),
    Edit("training/lr_schedule.py", "epoch >= milestone", "epoch > milestone", "simsiam"),
    Edit("training/lr_schedule.py", "0.1 ** sum", "0.2 ** sum", "simsiam"),
    Edit("training/lr_schedule.py", "/ (epochs - optimizer.warmup_epochs)", "/ epochs", "byol"),
    Edit("training/lr_schedule.py", "math.cos(math.pi * progress)", "math.cos(math.pi * min(progress, 0.99))", "byol"),
    Edit(
        "training/trainer.py",
        "return self.epoch + self.step / self.stream.steps",
        "return self.epoch + (self.step + 1) / self.stream.steps",
        "byol",
    ),
    Edit(
        "training/trainer.py",
        "self._progress if by_step else self.epoch",
        "self.epoch if by_step else self.epoch",
        "byol",
    ),
    # optimizers
    Edit("training/optimizers.py", "EPSILON = 1e-8", "EPSILON = 1e-7", "dino"),
    Edit("training/optimizers.py", "steps.clamp(min=1)", "steps.clamp(min=2)", "dino"),
    Edit("training/optimizers.py", "value=1 - self.betas[1]", "value=1 - self.betas[0]", "dino"),
    Edit("training/optimizers.py", "values.mul_(1 - lr * decay)", "values.mul_(1 - 2 * lr * decay)", "dino"),
    Edit("training/optimizers.py", "steps[list(with_grad)] += 1", "steps += 1", "moco-v3"),
    Edit("training/optimizers.py", "nesterov=False", "nesterov=True", "simclr"),
    Edit(
        "training/optimizers.py",
        "gradients.addcmul_(decay, values)",
        "gradients.addcmul_(decay, values, value=2)",
        "byol",
    ),
    Edit(
        "training/optimizers.py",
        "norms[0] / (norms[1] + weight_decay * norms[0] + 1e-8)",
        "norms[0] / (norms[1] + 1e-8)",
        "simsiam",
    ),
    # teacher
    Edit("training/teacher.py", "step = 1 - momentum", "step = 1.001 - momentum", "simclr"),
    Edit("training/teacher.py", "cosine(epoch / self.run.epochs)", "cosine(int(epoch) / self.run.epochs)", "byol"),
    Edit("training/teacher.py", "gathered[unshuffled] for", "gathered[order] for", "moco"),
    Edit(
        "training/teacher.py", "first.number * len(first.views[0])", "first.number * (len(first.views[0]) - 1)", "moco"
    ),
    Edit(
        "training/teacher.py",
        "self._gather(targets, 0), self._gather(targets, 1)",
        "self._gather(targets, 0), self._gather(targets, 0)",
        "dino",
    ),
    Edit("training/teacher.py", "output.projection.detach().unflatten", "output.projection.unflatten", "simsiam"),
    Edit(
        "training/teacher.py",
        "[each.detach() for each in output.maps]",
        "list(output.maps)",
        "features",
        EQUIVALENT + "the loss detaches the teacher's maps, too",
    ),
    Edit("training/queue.py", "= F.normalize(embeddings, dim=1)", "= embeddings", "moco"),
    Edit("training/queue.py", "add_(len(embeddings))", "add_(len(embeddings) // 2)", "moco"),
    Edit("training/frozen_teacher.py", "None, groups=groups)", "None, groups=1)", "seed"),
    # weights, micro-batches, state
    Edit("training/flat_parameters.py", "sums + parts[2 * len(sums) :]", "sums", "byol"),
    Edit("training/flat_parameters.py", "self._gradients.zero_()", "self._gradients", "simclr"),
    Edit("training/flat_parameters.py", "        leaf.grad = None\n", "", "simclr"),
    Edit("training/flat_parameters.py", "requires_grad_(name in self.trainable)", "requires_grad_(True)", "simsiam"),
    Edit("training/micro_batches.py", "return MicroBatching(1, CACHE)", "return MicroBatching(2, CACHE)", "simclr"),
    Edit("training/trainer.py", 'about["epoch"], about["step"]', 'about["epoch"], 0', "simclr"),
    Edit("training/step.py", "in self.state().items():", "in list(self.state().items())[:2]:", "simclr"),
    Edit("training/step.py", "            **self.optimizer.state,\n", "", "simclr"),
    # heads
    Edit("models/heads.py", 'if method.heads in ("simsiam", "moco-v3"):', 'if method.heads == "moco-v3":', "simsiam"),
    Edit("models/heads.py", 'distillation_head == "separate"', 'distillation_head == "shared"', "byol"),
    Edit("models/heads.py", 'bias=method.name == "simclr"', 'bias=method.name != "simclr"', "byol"),
    Edit("models/heads.py", "layers[-1].bias.requires_grad_(False)", "layers[-1].bias.requires_grad_(True)", "simsiam"),
    Edit("models/heads.py", "patch_embed.requires_grad_(False)", "patch_embed.requires_grad_(True)", "moco-v3"),
    # networks
    Edit(
        "models/slimmable.py",
        "tuple(slice(size) for size in shape)",
        "tuple(slice(-size, None) for size in shape)",
        "simclr",
    ),
    Edit("models/slimmable.py", 'f"{name}@{width}" if name in switchable else name', "name", "switchable"),
    Edit("models/ghost_batch_norm.py", "for part in x.chunk(groups)", "for part in [x]", "simclr"),
    Edit("models/ghost_batch_norm.py", "momentum=0.0, eps=eps", "momentum=0.0, eps=2 * eps", "simclr"),
    Edit("models/backbones/resnet.py", "self.bn2(self.conv2(x), shortcut)", "self.bn2(self.conv2(x))", "simclr"),
    Edit("models/backbones/layers.py", "rounded >= 0.9 * exact", "rounded >= exact", "uniform"),
    Edit("models/backbones/layers.py", 'mode="fan_out"', 'mode="fan_in"', "supervised"),
    Edit("models/backbones/mobilenet.py", "shortcut=index > 0", "shortcut=index > 1", "pictures"),
    Edit(
        "models/backbones/vit.py",
        "self._tokens(self._patches(x)))[:, 0]",
        "self._tokens(self._patches(x))).mean(1)",
        "moco-v3",
    ),
    Edit("models/backbones/vit.py", "10000.0**exponents", "1000.0**exponents", "moco-v3"),
    Edit("models/backbones/vit.py", "x[..., : self.in_features]", "x[..., -self.in_features :]", "moco-v3"),
    Edit("models/pruning.py", "argsort(stable=True)", "argsort(stable=True, descending=True)", "supervised"),
    Edit(
        "models/pruning.py",
        "(norm.weight, norm.bias):\n            if",
        "(norm.weight,):\n            if",
        "supervised",
    ),
    Edit("models/complexity.py", "sum(macs) + features.numel() * classes", "sum(macs)", "simclr"),
    # random numbers and views
    Edit("utils/philox.py", "for _ in range(10)", "for _ in range(9)", "simclr"),
    Edit("data/stream.py", "Purpose.AUGMENT, epoch", "Purpose.AUGMENT, 0", "simclr"),
    Edit("data/stream.py", "Purpose.SHUFFLE, epoch", "Purpose.SHUFFLE, 0", "moco"),
    Edit("data/stream.py", "self._batches(epoch)[first:]", "self._batches(epoch)[first - 1 :]", "simclr"),
    Edit("data/augment/views.py", "x.sub_(mean).div_(std)", "x.sub_(mean).mul_(std)", "simclr"),
    Edit("data/augment/views.py", "return (u[:, 0] < probability,)", "return (u[:, 0] < probability / 2,)", "byol"),
    Edit("data/augment/resample.py", "+ 0.5) * scale - 0.5", "+ 0.5) * scale", "byol"),
    Edit("data/augment/resample.py", "(1.5 * near - 2.5)", "(1.25 * near - 2.25)", "byol"),
    Edit("data/augment/resample.py", "(-0.5 * (offset", "(-0.6 * (offset", "byol"),
    Edit("data/augment/resample.py", "2 * motion.right / width", "motion.right / width", "simsiam"),
    Edit("data/augment/draw.py", "u[:, 1:5].argsort", "u[:, 0:4].argsort", "pictures"),
    Edit("data/augment/draw.py", "u[:, 0] < settings.probability", "u[:, 0] > settings.probability", "pictures"),
    Edit("data/augment/color.py", "alpha=0.587", "alpha=0.578", "pictures"),
    Edit("data/augment/color.py", "channels + 3)", "channels + 2)", "pictures"),
    Edit("data/augment/color.py", "(x >= threshold)", "(x <= threshold)", "pictures"),
    # calibration
    Edit(
        "evaluation/calibration.py",
        "norm.momentum = calibration.momentum",
        "norm.momentum = 1.01 * calibration.momentum",
        "simclr",
    ),
    Edit("evaluation/calibration.py", "order[: full or len(order)]", "order", "simclr"),
    Edit("evaluation/calibration.py", "Purpose.CALIBRATE, epoch", "Purpose.CALIBRATE, 0", "simclr"),
    Edit("evaluation/calibration.py", "network.train().to(", "network.eval().to(", "simclr"),
    # classifiers and neighbours
    Edit("evaluation/classifier.py", "errors.sum(1)", "errors.mean(1)", "simclr"),
    Edit("evaluation/classifier.py", "add_(parameter, alpha=decay)", "add_(parameter, alpha=2 * decay)", "simclr"),
    Edit("evaluation/classifier.py", "Purpose.LINEAR_ORDER, epoch", "Purpose.LINEAR_ORDER, 0", "simclr"),
    Edit(
        "evaluation/classifier.py",
        "protocol.optimizer, epoch, protocol.epochs",
        "protocol.optimizer, epoch + 1, protocol.epochs",
        "simclr",
    ),
    Edit("evaluation/classifier.py", "div_(len(labels))", "div_(64)", "simclr"),
    Edit("evaluation/features.py", "Purpose.LINEAR_AUGMENT, epoch", "Purpose.LINEAR_AUGMENT, 0", "dino"),
    Edit("evaluation/finetune.py", "lr * relative", "lr", "moco"),
    Edit(
        "evaluation/finetune.py",
        "(self.optimizer.weight_decay * weights",
        "(2 * self.optimizer.weight_decay * weights",
        "moco",
    ),
    Edit(
        "evaluation/finetune.py",
        "OrderedDict(backbone=network, classifier=classifier)).train()",
        "OrderedDict(backbone=network, classifier=classifier)).eval()",
        "moco",
    ),
    Edit("evaluation/knn.py", "cosines / protocol.temperature", "cosines / (1.01 * protocol.temperature)", "byol"),
    Edit("evaluation/knn.py", "F.normalize(bank), []", "bank, []", "byol"),
    Edit(
        "evaluation/features_linear.py",
        "features(frozen, images.training())",
        "features(networks, images.training())",
        "simsiam",
        EQUIVALENT + "folding a BatchNorm only rounds otherwise",
    ),
    Edit("evaluation/metrics.py", "ranks < 5", "ranks <= 5", "simclr"),
    Edit(
        "models/folding.py",
        "len(convolution.users) == 1",
        "len(convolution.users) == 2",
        "simclr",
        EQUIVALENT + "folding a BatchNorm only rounds otherwise",
    ),
]

REFACTORINGS = [
    Edit(
        "losses/embeddings.py",
        "student.device)\n    return 2 * temperature * F.cross_entropy(logits, own)",
        "student.device)\n    value = F.cross_entropy(logits, own)\n    return 2 * temperature * value",
        "moco-v3",
    ),
    Edit(
        "losses/embeddings.py",
        "return -total(F.cosine_similarity(one, other, dim=-1).mean() for one, other in",
        "return -total(F.cosine_similarity(view, other, dim=-1).mean() for view, other in",
        "byol",
    ),
    Edit(
        "training/trainer.py",
        "return self.epoch + self.step / self.stream.steps",
        "done = self.step / self.stream.steps\n        return self.epoch + done",
        "byol",
    ),
    Edit("training/flat_parameters.py", "return torch.cat(gradients)", "return torch.cat(tuple(gradients))", "simclr"),
    Edit(
        "training/lr_schedule.py",
        "return optimizer.lr * cosine(progress)",
        "return cosine(progress) * optimizer.lr",
        "simclr",
    ),
    Edit(
        "training/regularizer.py",
        "addcmul_(coefficients, values, value=2)",
        "addcmul_(2 * coefficients, values)",
        "simclr",
    ),
    Edit(
        "training/width_sampling.py",
        'ends = [high, low] if sampling.rule == "sandwich" else []',
        'ends = [] if sampling.rule != "sandwich" else [high, low]',
        "uniform",
    ),
    Edit(
        "training/teacher.py",
        "step *= cosine(epoch / self.run.epochs)",
        "step = step * cosine(epoch / self.run.epochs)",
        "byol",
    ),
    Edit("evaluation/finetune.py", "lr * relative", "relative * lr", "moco"),
    Edit(
        "evaluation/knn.py", "(weights[:, None] @ ballots)[:, 0]", "(weights.unsqueeze(1) @ ballots).squeeze(1)", "byol"
    ),
    Edit(
        "models/backbones/resnet.py",
        "x = self.bn1(self.conv1(x))\n        return self.bn2(self.conv2(x), shortcut)",
        "inner = self.bn1(self.conv1(x))\n        return self.bn2(self.conv2(inner), shortcut)",
        "simclr",
    ),
    Edit(
        "evaluation/calibration.py",
        "for (x,) in images.augmented(batches, [views.linear], views.normalize, key):\n            x = x.",
        "for [view] in images.augmented(batches, [views.linear], views.normalize, key):\n            x = view.",
        "simclr",
    ),
    Edit(
        "data/augment/draw.py",
        "return low + (high - low) * u",
        "span = high - low\n    return low + span * u",
        "pictures",
    ),
]

REORDERINGS = [
    Edit(
        "losses/embeddings.py",
        "logits = embeddings @ embeddings.mT / temperature",
        "logits = embeddings / temperature @ embeddings.mT",
        "simclr",
    ),
    Edit(
        "losses/embeddings.py",
        "F.cosine_similarity(one, other, dim=-1).mean() for one, other in",
        "(F.normalize(one, dim=-1) * F.normalize(other, dim=-1)).sum(-1).mean() for one, other in",
        "byol",
    ),
    Edit(
        "losses/embeddings.py",
        "F.normalize(student, dim=1) @ F.normalize(keys.detach(), dim=1).T / temperature",
        "F.normalize(student, dim=1) @ (F.normalize(keys.detach(), dim=1) / temperature).T",
        "moco-v3",
    ),
    Edit(
        "models/ghost_batch_norm.py",
        "F.batch_norm(part, None, None, weight, bias, training=True, momentum=0.0, eps=eps) for part",
        "F.batch_norm(part.flip(0), None, None, weight, bias, training=True, eps=eps).flip(0) for part",
        "simsiam",
    ),
    Edit(
        "losses/embeddings.py",
        "-(targets.detach() * logits.log_softmax(-1)).sum(-1).mean()",
        "-(targets.detach() * logits.log_softmax(-1)).mean() * logits.shape[-1]",
        "relations",
    ),
]


class Bench:
    """The results of variants by the package as it is, made once; each edit is judged in copies of both."""

    def __init__(self, folder: Path, runs: Iterable[str]) -> None:
        self.folder, self._numbers = folder, count()
        self.code = shutil.copytree(PACKAGE, folder / "code" / "us3l").parent
        fork_server()
        self.projects = {run: self._project(run) for run in dict.fromkeys(runs)}
        list(in_parallel(self._make, self.projects.values()))

    def _project(self, run: str) -> Project:
        project = Project(self.folder / run, VARIANTS[run].params())
        project.environment = {"PYTHONPATH": str(self.code)}
        if VARIANTS[run].pictures:
            with chdir(project.folder):
                draw_images()
        return project

    def _make(self, project: Project) -> None:
        """Make all results of a project but its tables."""
        for job in jobs(Plan(load(project.folder / "params.yaml")), ["tiny"]):
            if job.stage != "table":
                project.must("us3l", *job.command.split())

    def judge(self, edit: Edit) -> Judgement:
        """Run the probes of a variant's results with an edited copy of the package."""
        made, folder = self.projects[edit.run].folder, self.folder / f"edit{next(self._numbers)}"
        shutil.copytree(self.code, folder / "code", copy_function=os.link)
        apply(edit, folder / "code" / "us3l")
        shutil.copytree(made, folder / "project", copy_function=os.link, ignore=lambda *_: ["params.yaml"])
        project = Project(folder / "project", VARIANTS[edit.run].params())
        project.environment = {"PYTHONPATH": str(folder / "code")}
        code, output = project.run("us3l", "requalify")
        shutil.rmtree(folder)
        return judgement(code, output)


def judgement(code: int, output: str) -> Judgement:
    """Read what `us3l requalify` has printed."""
    for verdict, pattern in PATTERNS.items():
        if found := re.search(pattern, output, re.MULTILINE):
            return Judgement(verdict if code == (verdict == DIFFERS) else FAILS, " ".join(found.groups()), output)
    return Judgement(FAILS if output else NOTHING, output.strip().rpartition("\n")[2], output)


def in_parallel(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Apply a function on all cores, and yield the results in order."""
    with ThreadPoolExecutor(CORES) as pool:
        yield from pool.map(function, items)


def report(judged: Sequence[Judged], refactored: Sequence[Judged], reordered: Sequence[Judged]) -> str:
    """Return docs/probes.md."""
    caught = sum(judgement.verdict == DIFFERS for _, judgement in judged)
    changes = sum(not edit.note.startswith(EQUIVALENT) for edit, _ in judged)
    lines = [
        INTRODUCTION.format(mutations=len(judged), caught=caught, changes=changes),
        "| module | was | is | run | caught by, or why not |",
        "|---|---|---|---|---|",
        *(_row(edit, _reason(edit, judgement)) for edit, judgement in judged),
        "",
        "## Refactorings",
        "",
        "| module | was | is | run | verdict |",
        "|---|---|---|---|---|",
        *(_row(edit, judgement.verdict) for edit, judgement in refactored),
        "",
        "## Other orders of the same operations",
        "",
        "| module | was | is | run | verdict |",
        "|---|---|---|---|---|",
        *(_row(edit, f"{judgement.verdict}: {judgement.by}") for edit, judgement in reordered),
    ]
    return "\n".join(lines) + "\n"


def _reason(edit: Edit, judgement: Judgement) -> str:
    if judgement.verdict == DIFFERS:
        return judgement.by
    return f"**{judgement.verdict}**" + (f": {edit.note.removeprefix(EQUIVALENT)}" if edit.note else "")


def _row(edit: Edit, verdict: str) -> str:
    return f"| {edit.module} | {as_code(edit.old)} | {as_code(edit.new)} | {edit.run} | {verdict} |"


def main() -> None:
    """Judge the edits whose module or run has a name with one of the arguments in it; all, and write the report."""
    wanted = [
        edit for edit in MUTATIONS + REFACTORINGS + REORDERINGS if not sys.argv[1:] or _is_named(edit, sys.argv[1:])
    ]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), [edit.run for edit in wanted])
        judged = []
        for edit, judgement in zip(wanted, in_parallel(bench.judge, wanted), strict=True):
            print(f"{judgement.verdict}: {edit.module}: {as_code(edit.old)} {edit.run}: {judgement.by}", flush=True)
            judged.append((edit, judgement))
    if not sys.argv[1:]:
        first, second = len(MUTATIONS), len(MUTATIONS + REFACTORINGS)
        (ROOT / "docs" / "probes.md").write_text(report(judged[:first], judged[first:second], judged[second:]))


def _is_named(edit: Edit, names: Sequence[str]) -> bool:
    return any(name in edit.module or name == edit.run for name in names)


if __name__ == "__main__":
    main()
