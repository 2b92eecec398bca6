"""params.yaml: what is refused, and the one sentence that says so: file, key, value and what would be right."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, RUN, params

from us3l.params.method import LOSSES, Method
from us3l.params.params import Params
from us3l.params.reading import load
from us3l.utils.errors import UserError

NOTHING = object()
STUDY, RUNS = "studies.tiny", "studies.tiny.runs.us3l"
ROWS = f"{STUDY}.tables.main.rows"
NAME = "must be lower-case letters and digits, with single hyphens between"
KEYS = "build, include, datasets, methods, protocols, studies"
SAMPLING_KEYS = "range, widths_per_step, rule, schedule"
METHOD_KEYS = (
    "name, base_loss, distillation_loss, distillation_strength, feature_distillation, distillation_head, teacher, "
    "momentum, momentum_schedule, momentum_update, temperature, student_temperature, teacher_temperature, queue, "
    "projector"
)
PROBE_KEYS = "lr, momentum, weight_decay, schedule, milestones, warmup_epochs"
OPTIMIZER_KEYS = f"{PROBE_KEYS}, kind, betas, rate"
VIEW_KEYS = "resized_crop, affine, color_jitter, grayscale, blur, flip, solarize"
BACKBONES = (
    "'small-resnet', 'cifar-resnet18', 'cifar-resnet34', 'cifar-resnet50', 'cifar-resnet101', 'resnet18', 'resnet34', "
    "'resnet50', 'resnet101', 'cifar-mobilenetv1', 'mobilenetv1', 'cifar-mobilenetv2', 'mobilenetv2', 'vit-tiny', "
    "'vit-small' or 'vit-base'"
)


def content() -> dict[str, Any]:
    """A study of three runs on the digits, a table whose second row maps widths to runs, and two more data sets."""
    made = params()
    views = {"normalize": {"mean": [0.5] * 3, "std": [0.2] * 3}, "pretrain": [{"flip": 0.5}, {"flip": 0.5}]}
    archive = {"kind": "cifar10", "url": "https://example.org/cifar.tar.gz", "md5": "0" * 32}
    archive["subset"] = {"classes": 2, "train": 5, "test": 5}
    images = {"kind": "folder", "train": "images", "test_fraction": 0.1, "image_size": 32}
    made["datasets"] |= {"cifar": {"source": archive, "views": views}, "pets": {"source": images, "views": views}}
    narrow = RUN | {"sampling": {"range": [0.25, 0.25], "widths_per_step": 1}}
    pixels = {"kind": "untrained", "dataset": "digits", "backbone": "pixels"}
    study = made["studies"]["tiny"]
    study["runs"] |= {"narrow": narrow, "pixels": pixels}
    study["tables"]["main"]["rows"].append({"label": "Apart", "runs": {1.0: "us3l", 0.25: "narrow"}})
    return json.loads(json.dumps(made))  # nothing is shared, so that an edit changes one place


def edited(key: str, value: Any) -> dict[str, Any]:
    """The content with the value at a dotted key replaced, added or, for NOTHING, left out."""
    made = content()
    *parents, last = (int(part) if part.isdigit() else part for part in key.split("."))
    place: Any = made
    for part in parents:
        place = place[part]
    if value is NOTHING:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes) -> Params:
    Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(Path("params.yaml"))


def refusal(text: str | bytes) -> str:
    """The sentence that stops the command, less the file's name, with which it begins."""
    with pytest.raises(UserError) as caught:
        read(text)
    sentence = str(caught.value)
    assert sentence.startswith("params.yaml: ") and "\n" not in sentence
    return sentence.removeprefix("params.yaml: ")


def test_the_shipped_file_is_right() -> None:
    assert load(ROOT / "params.yaml").build == ["digits"]


def test_the_content_that_these_tests_spoil_is_right() -> None:
    read(yaml.safe_dump(content()))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("biuld", ["tiny"], "unknown key; did you mean 'build'?"),
        ("datasets.digits.sorce", {}, "unknown key; did you mean 'source'?"),
        ("datasets.digits.source.test_fracton", 0.2, "unknown key; did you mean 'test_fraction'?"),
        ("datasets.cifar.source.subset.class", 2, "unknown key; did you mean 'classes'?"),
        ("datasets.digits.views.normalise", {}, "unknown key; did you mean 'normalize'?"),
        ("datasets.digits.views.normalize.men", [], "unknown key; did you mean 'mean'?"),
        ("datasets.digits.views.pretrain.0.flipp", 0.5, "unknown key; did you mean 'flip'?"),
        ("datasets.digits.views.pretrain.0.affine.transalte", 0.1, "unknown key; did you mean 'translate'?"),
        ("datasets.digits.views.test", {"centre_crop": 8}, "unknown key; did you mean 'center_crop'?"),
        ("protocols.quick.batchsize", 8, "unknown key; did you mean 'batch_size'?"),
        ("protocols.quick.calibration", {"pases": 1}, "unknown key; did you mean 'passes'?"),
        ("protocols.quick.optimizer.nesterov", True, f"unknown key; there is {PROBE_KEYS}, trust_coefficient"),
        (f"{STUDY}.seed", [0], "unknown key; did you mean 'seeds'?"),
        (f"{RUNS}.epohcs", 4, "unknown key; did you mean 'epochs'?"),
        (f"{RUNS}.method.temprature", 0.2, "unknown key; did you mean 'temperature'?"),
        (f"{RUNS}.batch.shard", 2, "unknown key; did you mean 'shards'?"),
        (f"{RUNS}.optimizer", {"learning_rate": 0.1}, f"unknown key; there is {OPTIMIZER_KEYS}"),
        (f"{RUNS}.regularizer.strenght", 1.0, "unknown key; did you mean 'strength'?"),
        (f"{RUNS}.sampling", {"widths_per_stepp": 3}, "unknown key; did you mean 'widths_per_step'?"),
        (f"{RUNS}.resources", {"gpu": 1}, "unknown key; did you mean 'gpus'?"),
        (f"{STUDY}.runs.pixels.epochs", 3, "unknown key; there is kind, dataset, backbone, resources"),
        (f"{STUDY}.tables.main.caption", "x", "unknown key; there is title, rows, published, training_cost"),
        (f"{ROWS}.0.run", "us3l", "unknown key; did you mean 'runs'?"),
    ],
)
def test_a_misspelt_key_is_named_with_the_right_one(key: str, value: Any, said: str) -> None:
    inner = f".{next(iter(value))}" if isinstance(value, dict) and value else ""
    assert refusal(yaml.safe_dump(edited(key, value))) == f"{key}{inner}: {said}"


TRAINED = {"epochs": 2, "batch_size": 8, "optimizer": {"lr": 0.1}}


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        (TRAINED, "linear"),
        (TRAINED | {"kind": "linear"}, "linear"),
        (TRAINED | {"kind": "features-linear"}, "features-linear"),
        ({"kind": "knn"}, "knn"),
        (TRAINED | {"kind": "finetune", "classifier_lr": 1.0}, "finetune"),
    ],
)
def test_a_protocol_is_linear_unless_it_says_its_kind(protocol: dict[str, Any], kind: str) -> None:
    assert read(yaml.safe_dump(edited("protocols.quick", protocol))).protocols["quick"].kind == kind


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ({"kind": "kmeans"}, "kind: must be 'linear', 'features-linear', 'knn' or 'finetune'"),
        ({"kind": None}, "kind: must be 'linear', 'features-linear', 'knn' or 'finetune'"),
        ({"kind": ["knn"]}, "kind: must be 'linear', 'features-linear', 'knn' or 'finetune'"),
        ({"kind": "knn", "neighbors": 5}, "neighbors: unknown key; did you mean 'neighbours'?"),
        ({"kind": "knn", "neighbours": 0}, "neighbours: must be at least 1, not 0"),
        ({"kind": "knn", "temperature": 0.0}, "temperature: must be greater than 0, not 0.0"),
        ({"kind": "finetune"}, "epochs: is missing"),
        (
            TRAINED | {"kind": "finetune", "optimizer": {"lr": 0.1, "trust_coefficient": 0.1}},
            f"optimizer.trust_coefficient: unknown key; there is {PROBE_KEYS}",
        ),
        (TRAINED | {"kind": "finetune", "batch_size": 1}, "batch_size: must be at least 2, not 1"),
        (
            TRAINED | {"kind": "finetune", "optimizer": {"lr": 0.1, "schedule": "multistep", "milestones": [2]}},
            "optimizer.milestones: must be below the 2 epochs, not [2]",
        ),
        (
            TRAINED | {"kind": "features-linear", "optimizer": {"lr": 0.1, "warmup_epochs": 2}},
            "optimizer.warmup_epochs: must be below the 2 epochs, not 2",
        ),
        (TRAINED | {"neighbours": 3}, "neighbours: unknown key; there is calibration, epochs, batch_size, optimizer"),
    ],
)
def test_a_protocol_has_the_keys_of_its_kind(protocol: dict[str, Any], said: str) -> None:
    assert refusal(yaml.safe_dump(edited("protocols.quick", protocol))).startswith(f"protocols.quick.{said}")


@pytest.mark.parametrize(
    "key",
    [
        "build",
        "datasets",
        "datasets.digits.source",
        "datasets.digits.source.kind",
        "datasets.digits.source.test_fraction",
        "datasets.cifar.source.url",
        "datasets.cifar.source.subset.test",
        "protocols.quick.epochs",
        f"{STUDY}.tables",
        f"{STUDY}.tables.main.title",
        f"{ROWS}.0.runs",
        f"{RUNS}.dataset",
        f"{RUNS}.method",
        f"{RUNS}.method.base_loss",
        f"{RUNS}.batch.size",
        f"{RUNS}.optimizer.lr",
        f"{RUNS}.regularizer.kind",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    assert refusal(yaml.safe_dump(edited(key, NOTHING))) == f"{key}: is missing"


WHOLE, NUMBER, TEXT, LIST, MAPPING = (
    f"must be {what}" for what in ("a whole number", "a number", "text", "a list", "a mapping of keys to values")
)
PAIR = "datasets.digits.views.pretrain.0.affine.scale"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (f"{RUNS}.epochs", "20", f"{WHOLE}, not '20'"),
        (f"{RUNS}.epochs", 20.0, f"{WHOLE}, not 20.0"),
        (f"{RUNS}.epochs", True, f"{WHOLE}, not True"),
        (f"{RUNS}.epochs", None, f"{WHOLE}, not null"),
        (f"{RUNS}.epochs", [20], f"{WHOLE}, not [20]"),
        (f"{RUNS}.optimizer.lr", "0.05", f"{NUMBER}, not '0.05'"),
        (f"{RUNS}.optimizer.lr", None, f"{NUMBER}, not null"),
        (f"{RUNS}.method.momentum", "0.99", f"{NUMBER}, not '0.99'"),
        ("datasets.digits.views.pretrain.0.flip", True, f"{NUMBER}, not True"),
        ("datasets.digits.views.pretrain.0.flip", "yes", f"{NUMBER}, not 'yes'"),
        ("datasets.digits.views.pretrain.0.affine.degrees", [0, 15], f"{NUMBER}, not [0, 15]"),
        ("datasets.digits.views.normalize.mean", 0.3, f"{LIST}, not 0.3"),
        (f"{STUDY}.seeds", 3, f"{LIST}, not 3"),
        (f"{STUDY}.widths", 1.0, f"{LIST}, not 1.0"),
        ("build", "tiny", f"{LIST}, not 'tiny'"),
        (PAIR, 1.0, f"{LIST}, not 1.0"),
        (f"{RUNS}.dataset", 5, f"{TEXT}, not 5"),
        (f"{STUDY}.tables.main.title", 3, f"{TEXT}, not 3"),
        ("datasets", [], f"{MAPPING}, not []"),
        (f"{STUDY}.runs", None, f"{MAPPING}, not null"),
        ("datasets.digits.source", "digits", f"{MAPPING}, not 'digits'"),
        (f"{RUNS}.batch", 128, "must be a mapping with the keys size, shards, not 128"),
        (f"{RUNS}.method", 3, f"must be a mapping with the keys {METHOD_KEYS}, not 3"),
        (f"{RUNS}.method", "simclr", "no method is called 'simclr'; there is none"),
        (f"{RUNS}.sampling", 3, "must be at most 1.0, not 3"),
        (f"{RUNS}.optimizer", 0.1, f"must be a mapping with the keys {OPTIMIZER_KEYS}, not 0.1"),
        *(
            (
                f"{RUNS}.sampling",
                value,
                f"must be a mapping with the keys range, widths_per_step, rule, schedule, not {said}",
            )
            for value, said in (("dynamic", "'dynamic'"), (None, "null"), ([0.25, 1.0], "[0.25, 1.0]"))
        ),
        ("datasets.digits.views.pretrain.0", None, f"must be a mapping with the keys {VIEW_KEYS}, not null"),
        (f"{ROWS}.0.runs", None, "must be a run, or a mapping of widths to runs, not null"),
        (f"{ROWS}.0.runs", ["us3l"], "must be a run, or a mapping of widths to runs, not ['us3l']"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: Any, said: str) -> None:
    assert refusal(yaml.safe_dump(edited(key, value))) == f"{key}: {said}"


NAN, INF = float("nan"), float("inf")
VIEWS = "datasets.digits.views"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (f"{RUNS}.epochs", 0, "must be at least 1, not 0"),
        (f"{RUNS}.epochs", -3, "must be at least 1, not -3"),
        (f"{RUNS}.method.momentum", 1.5, "must be at most 1.0, not 1.5"),
        (f"{RUNS}.method.temperature", 0, "must be greater than 0, not 0"),
        (f"{RUNS}.method.projector.hidden", 1, "must be at least 2, not 1"),
        (
            f"{RUNS}.method.name",
            "swav",
            "must be 'simclr', 'byol', 'simsiam', 'moco', 'moco-v3', 'seed' or 'supervised', not 'swav'",
        ),
        (
            f"{RUNS}.method.base_loss",
            "cosin",
            f"must be one of {', '.join(LOSSES)}, or several with + between, not 'cosin'",
        ),
        (
            f"{RUNS}.method.base_loss",
            "infonce+cosine+infonce",
            "must name each loss once, not 'infonce+cosine+infonce'",
        ),
        (f"{RUNS}.method.feature_distillation", {"layers": [""]}, "layers.0: must be one line of text, not ''"),
        (
            f"{RUNS}.method.feature_distillation",
            {"layers": ["layer2", "layer2"]},
            "layers: ['layer2', 'layer2'] names a layer twice; name each once",
        ),
        (f"{RUNS}.optimizer.lr", 0, "must be greater than 0, not 0"),
        (f"{RUNS}.optimizer.lr", NAN, "must be a finite number, not nan"),
        (f"{RUNS}.optimizer.lr", INF, "must be a finite number, not inf"),
        (f"{RUNS}.optimizer.momentum", 1.0, "must be less than 1, not 1.0"),
        (f"{RUNS}.optimizer.schedule", "step", "must be 'cosine', 'multistep' or 'constant', not 'step'"),
        (f"{RUNS}.regularizer.strength", -1.0, "must be greater than 0, not -1.0"),
        (
            f"{RUNS}.regularizer.kind",
            "grup",
            "must be 'group', 'l2', 'l1-batchnorm' or 'group-l1-batchnorm', not 'grup'",
        ),
        (f"{RUNS}.precision", "bf16", "must be 'float32' or 'bfloat16', not 'bf16'"),
        (f"{RUNS}.backbone", "resnet19", f"must be {BACKBONES}, not 'resnet19'"),
        (f"{RUNS}.backbone", "pixels", f"must be {BACKBONES}, not 'pixels'"),
        (f"{RUNS}.resources.gpus", -1, "must be at least 0, not -1"),
        (f"{STUDY}.widths.1", 0, "must be at least 0.25, not 0"),
        (f"{STUDY}.widths.1", 0.1, "must be at least 0.25, not 0.1"),
        (f"{STUDY}.widths.1", 2, "must be at most 1.0, not 2"),
        (f"{STUDY}.widths.1", NAN, "must be a finite number, not nan"),
        (f"{STUDY}.widths", [], "must have at least 1 entries, not []"),
        (f"{STUDY}.widths", [1.0, 0.25, 1], "[1.0, 0.25, 1.0] names a value twice; name each once"),
        (f"{STUDY}.seeds", [0, 1, 0], "[0, 1, 0] names a value twice; name each once"),
        (f"{STUDY}.seeds", [], "must have at least 1 entries, not []"),
        (f"{STUDY}.seeds.0", -1, "must be at least 0, not -1"),
        (f"{STUDY}.seeds.0", 2**64, f"must be less than {2**64}, not {2**64}"),
        ("build", ["tiny", "tiny"], "['tiny', 'tiny'] names a value twice; name each once"),
        (
            "datasets.digits.source.kind",
            "digts",
            "must be one of 'digits', 'cifar10', 'cifar100', 'folder', 'aircraft', 'caltech101', 'dtd', 'flowers102', "
            "'food101', 'pets', not 'digts'",
        ),
        ("datasets.digits.source.test_fraction", 1.5, "must be less than 1, not 1.5"),
        ("datasets.cifar.source.md5", "C0FFEE", "must be 32 hexadecimal digits, in lower case, not 'C0FFEE'"),
        ("datasets.cifar.source.url", "example.org", "must be an https:// or file:// address, not 'example.org'"),
        ("datasets.cifar.source.subset.classes", 1, "must be at least 2, not 1"),
        (f"{VIEWS}.pretrain", [{}], "must have at least 2 entries, not [{}]"),
        (f"{VIEWS}.pretrain", [{}, {}, {}], "must have at most 2 entries, not [{}, {}, {}]"),
        (f"{VIEWS}.pretrain.0.flip", 1.5, "must be at most 1.0, not 1.5"),
        (f"{VIEWS}.pretrain.0.grayscale", -0.5, "must be at least 0.0, not -0.5"),
        (f"{VIEWS}.normalize.mean.0", 125.3, "must be at most 1.0, not 125.3"),
        (f"{VIEWS}.normalize.std.0", 0, "must be greater than 0, not 0"),
        (PAIR, [1.15, 0.85], "must be [low, high], not [1.15, 0.85]"),
        (PAIR, [1, 2, 3], "must have at most 2 entries, not [1, 2, 3]"),
        (f"{STUDY}.tables.main.title", "two\nlines", "must be one line of text, not 'two\\nlines'"),
        (f"{ROWS}.0.label", " ", "must be one line of text, not ' '"),
        (f"{ROWS}", [], "must have at least 1 entries, not []"),
    ],
)
def test_a_value_out_of_range_is_refused(key: str, value: Any, said: str) -> None:
    within = "." if isinstance(value, dict) else ": "
    assert refusal(yaml.safe_dump(edited(key, value))) == f"{key}{within}{said}"


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"blur": {"kernel_size": 4}}, "blur.kernel_size: must be odd, not 4"),
        ({"blur": {"kernel_size": 3, "sigma": [2.0, 0.1]}}, "blur.sigma: must be [low, high], not [2.0, 0.1]"),
        ({"resized_crop": {"size": 8, "scale": [1.0, 0.2]}}, "resized_crop.scale: must be [low, high], not [1.0, 0.2]"),
        ({"resized_crop": {"size": 8, "scale": [0.2, 1.5]}}, "resized_crop.scale.1: must be at most 1.0, not 1.5"),
        ({"resized_crop": {"size": 8, "scale": [0.2]}}, "resized_crop.scale.1: is missing"),
        ({"affine": {"scale": [0, 1]}}, "affine.scale.0: must be greater than 0, not 0"),
        ({"resized_crop": {"size": 8, "ratio": [1.3, 0.7]}}, "resized_crop.ratio: must be [low, high], not [1.3, 0.7]"),
        ({"color_jitter": {"hue": 0.6}}, "color_jitter.hue: must be at most 0.5, not 0.6"),
        ({"solarize": {"probability": 1.5}}, "solarize.probability: must be at most 1.0, not 1.5"),
    ],
)
def test_an_impossible_view_is_refused(view: dict[str, Any], said: str) -> None:
    assert refusal(yaml.safe_dump(edited(f"{VIEWS}.linear", view))) == f"{VIEWS}.linear.{said}"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"batch": {"size": 128, "shards": 3}}, "batch: 3 shards do not divide a batch of 128"),
        (
            {"batch": {"size": 4, "shards": 4}},
            "batch.size: must be at least 8, 2 images for the batch statistics of each shard, not 4",
        ),
        ({"resources": {"gpus": 4}}, "resources.gpus: must divide the batch's shards, 2, not 4"),
        ({"resources": {"gpus": 0, "nodes": 4}}, "resources.nodes: must divide the batch's shards, 2, not 4"),
        ({"resources": {"gpus": 2, "nodes": 3}}, "resources.nodes: must divide the gpus, 2, not 3"),
        ({"sampling": {"range": [1.0, 0.25]}}, "sampling.range: must be [low, high], not [1.0, 0.25]"),
        ({"sampling": {"range": [0.1, 1.0]}}, "sampling.range.0: must be at least 0.25, not 0.1"),
        ({"sampling": {"range": [0.25]}}, "sampling.range.1: is missing"),
        (
            {"sampling": {"widths_per_step": 1}},
            "sampling.widths_per_step: must be at least 2, not 1: "
            "the sandwich rule takes the widest and narrowest network",
        ),
        (
            {"sampling": {"range": [0.3, 0.4]}},
            "has the widths 0.3 to 0.4, but the study evaluates none of them, only [1.0, 0.25]",
        ),
        (
            {"optimizer": {"lr": 0.1, "weight_decay": 1e-4}},
            "optimizer.weight_decay: must be 0 where a regularizer takes its place, not 0.0001",
        ),
        (
            {"optimizer": {"lr": 0.1, "schedule": "multistep"}},
            "optimizer: milestones belong to the multistep schedule, and it needs them; multistep has []",
        ),
        (
            {"optimizer": {"lr": 0.1, "milestones": [2]}},
            "optimizer: milestones belong to the multistep schedule, and it needs them; cosine has [2]",
        ),
        (
            {"optimizer": {"lr": 0.1, "schedule": "multistep", "milestones": [3, 2]}},
            "optimizer.milestones: must rise, not [3, 2]",
        ),
        (
            {"optimizer": {"lr": 0.1, "schedule": "multistep", "milestones": [2, 4]}},
            "optimizer.milestones: must be below the 4 epochs, not [2, 4]",
        ),
        (
            {"optimizer": {"lr": 0.1, "warmup_epochs": 4}},
            "optimizer.warmup_epochs: must be below the 4 epochs, not 4",
        ),
        (
            {"regularizer": {"kind": "group", "strength": 1e-4, "alpha": 0.2}},
            "regularizer.alpha: must be at most 0.143, or the last of 8 groups would grow, not 0.2",
        ),
        (
            {"regularizer": {"kind": "group", "strength": 1e-4, "warmup_epochs": 4}},
            "regularizer.warmup_epochs: must be below the 4 epochs, not 4",
        ),
        (
            {
                "method": {
                    "name": "simsiam",
                    "base_loss": "cosine",
                    "momentum": None,
                    "feature_distillation": {"layers": ["layer2"]},
                },
                "sampling": {"rule": "uniform"},
            },
            "sampling.rule: without a momentum encoder the teacher's feature maps would have other channels in every "
            "step: take sandwich, or leave feature_distillation out",
        ),
    ],
)
def test_choices_of_a_run_that_do_not_fit_together_are_refused(run: dict[str, Any], said: str) -> None:
    made = content()
    made["studies"]["tiny"]["runs"]["us3l"] |= run
    assert refusal(yaml.safe_dump(made)) == f"{RUNS}{': ' if said.startswith('has') else '.'}{said}"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            {"name": "moco", "base_loss": "queue", "queue": 64, "momentum": None},
            "moco needs a momentum encoder: give momentum",
        ),
        (
            {"name": "seed", "base_loss": "cosine", "momentum": None},
            "seed learns from a frozen teacher: name its run under teacher",
        ),
        (
            {"name": "seed", "base_loss": "cosine", "teacher": "us3l"},
            "a frozen teacher takes the place of the momentum encoder: set momentum to null",
        ),
        (
            {
                "name": "byol",
                "base_loss": "cosine",
                "momentum": None,
                "teacher": "us3l",
                "feature_distillation": {"layers": ["layer2"]},
            },
            "feature maps are distilled between widths of one network: leave feature_distillation or teacher out",
        ),
        (
            {"name": "moco", "base_loss": "infonce", "feature_distillation": {"layers": ["layer2"]}},
            "moco's teacher sees a batch shuffled, maps of other images: leave feature_distillation out",
        ),
        (
            {"name": "simclr", "base_loss": "nt-xent", "momentum": None, "momentum_schedule": "cosine"},
            "momentum_schedule says how a momentum encoder slows down, and there is none",
        ),
        (
            {"name": "simclr", "base_loss": "cross-entropy"},
            "supervised training has the base loss cross-entropy, and no other method has it",
        ),
        (
            {"name": "supervised", "base_loss": "cross-entropy"},
            "supervised training learns from labels: set momentum to null, give no teacher or feature_distillation",
        ),
        (
            {"name": "supervised", "base_loss": "cross-entropy+cosine", "momentum": None, "distillation_loss": None},
            "supervised training has the base loss cross-entropy alone, not cross-entropy+cosine",
        ),
        *(
            (
                {"name": "simclr", "base_loss": "nt-xent", "distillation_loss": "nt-xent"} | teacher,
                "no loss compares with the momentum encoder or the frozen teacher: set momentum to null and leave "
                "teacher out, or take another loss than nt-xent",
            )
            for teacher in ({}, {"momentum": None, "teacher": "narrow"}, {"distillation_loss": None})
        ),
        (
            {"name": "simsiam", "base_loss": "cosine", "momentum": None, "distillation_head": "shared"},
            "distillation_head: is not read: simsiam without a teacher has one head anyway; leave it out",
        ),
        (
            {"name": "supervised", "base_loss": "cross-entropy", "momentum": None},
            "supervised training distils by soft-labels, or not at all (distillation_loss: null)",
        ),
        (
            {"name": "byol", "base_loss": "cosine", "distillation_loss": "soft-labels"},
            "the loss soft-labels is that of supervised training",
        ),
        (
            {"name": "byol", "base_loss": "cosine", "distillation_loss": "queue", "momentum": None, "teacher": "us3l"},
            "queue: must say how many embeddings are kept, since the losses are cosine, queue",
        ),
        (
            {
                "name": "supervised",
                "base_loss": "cross-entropy",
                "distillation_loss": None,
                "momentum": None,
                "projector": {"hidden": 64},
            },
            "projector: is not read: supervised training has no projector; leave it out",
        ),
        (
            {"name": "moco", "base_loss": "queue", "distillation_loss": "queue-soft-labels", "queue": 64},
            "queue and queue-soft-labels keep embeddings of different views: take one of them",
        ),
        (
            {"name": "byol", "base_loss": "cosine", "temperature": 0.2},
            "temperature: is read by infonce, nt-xent, contrastive, queue only, and the losses are cosine",
        ),
        (
            {"name": "byol", "base_loss": "cosine", "queue": 64},
            "queue: is read by queue, queue-soft-labels only, and the losses are cosine",
        ),
        (
            {"name": "byol", "base_loss": "cosine", "momentum": None},
            "byol needs a momentum encoder or a frozen teacher: give momentum, or take simsiam",
        ),
        (
            {"name": "simclr", "base_loss": "infonce", "momentum": None},
            "the infonce loss compares with another network's embeddings: give momentum or teacher, or take nt-xent",
        ),
        (
            {"name": "simclr", "base_loss": "nt-xent", "momentum": None, "momentum_update": "every-width"},
            "momentum_update says how often a momentum encoder moves, and there is none",
        ),
        (
            {"name": "simclr", "base_loss": "infonce", "distillation_loss": None},
            "without distillation every width needs its own target: set momentum_update to every-width",
        ),
        (
            {
                "name": "simclr",
                "base_loss": "infonce",
                "distillation_loss": None,
                "feature_distillation": {"layers": ["layer2"]},
            },
            "feature_distillation is from the widest network, and needs a distillation_loss",
        ),
    ],
)
def test_an_impossible_method_is_refused_with_the_way_out(method: dict[str, Any], said: str) -> None:
    of_key = said.split(":")[0] in Method.model_fields
    assert refusal(yaml.safe_dump(edited(f"{RUNS}.method", method))) == f"{RUNS}.method{'.' if of_key else ': '}{said}"


@pytest.mark.parametrize(
    "method",
    [
        {"name": "simclr", "base_loss": "nt-xent", "distillation_loss": "nt-xent", "momentum": None},
        {
            "name": "simclr",
            "base_loss": "nt-xent",
            "distillation_loss": "nt-xent",
            "feature_distillation": {"layers": ["layer2"]},
        },
        {"name": "simclr", "base_loss": "nt-xent+infonce", "distillation_loss": "nt-xent"},
        {"name": "simsiam", "base_loss": "cosine", "distillation_head": "shared"},
    ],
)
def test_a_method_whose_teacher_and_heads_are_used_is_right(method: dict[str, Any]) -> None:
    read(yaml.safe_dump(edited(f"{RUNS}.method", method)))


@pytest.mark.parametrize(
    "choice",
    [
        {"sampling": {"rule": "uniform"}},
        {
            "method": {
                "name": "simsiam",
                "base_loss": "cosine",
                "momentum": None,
                "feature_distillation": {"layers": ["layer2"]},
            }
        },
    ],
)
def test_feature_maps_may_be_distilled_where_a_teacher_always_has_the_same_channels(choice: dict[str, Any]) -> None:
    made = content()
    features = {"name": "simclr", "base_loss": "infonce", "feature_distillation": {"layers": ["layer2"]}}
    made["studies"]["tiny"]["runs"]["us3l"] |= {"method": features} | choice
    read(yaml.safe_dump(made))


@pytest.mark.parametrize(
    ("loss", "sizes", "refused"),
    [
        ("mse", (8, 6), True),
        ("attention-spatial", (8, 6), True),
        ("attention-channel", (8, 6), False),
        ("cosine", (8, 6), False),
        ("mse", (8, 8), False),
    ],
)
def test_feature_maps_of_views_of_two_sizes_are_compared_without_their_positions_only(
    loss: str, sizes: tuple[int, int], refused: bool
) -> None:
    made = edited(f"{RUNS}.method.feature_distillation", {"layers": ["layer2"], "loss": loss})
    made["datasets"]["digits"]["views"]["pretrain"] = [{"resized_crop": {"size": size}} for size in sizes]
    if not refused:
        read(yaml.safe_dump(made))
        return
    said = f"{loss} needs views of one size, and those of digits have [6, 8]: take attention-channel or cosine"
    assert refusal(yaml.safe_dump(made)) == f"{RUNS}.method.feature_distillation.loss: {said}"


READERS = {
    "alpha": ("group", "group-l1-batchnorm"),
    "decay": ("group",),
    "groups": ("group", "group-l1-batchnorm"),
    "by": ("group",),
    "warmup_epochs": ("group", "l1-batchnorm", "group-l1-batchnorm"),
}


@pytest.mark.parametrize("kind", ["group", "l2", "l1-batchnorm", "group-l1-batchnorm"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("alpha", 0.125), ("decay", "exponential"), ("groups", 4), ("by", "input-feature"), ("warmup_epochs", 1)],
)
def test_a_setting_that_a_penalty_does_not_read_is_refused(kind: str, key: str, value: Any) -> None:
    text = yaml.safe_dump(edited(f"{RUNS}.regularizer", {"kind": kind, "strength": 1e-4, key: value}))
    if kind in READERS[key]:
        read(text)
        return
    said = f"is read by {', '.join(READERS[key])} only, and the kind is {kind}"
    assert refusal(text) == f"{RUNS}.regularizer.{key}: {said}"


def test_l2_is_not_told_that_groups_would_grow() -> None:
    text = yaml.safe_dump(edited(f"{RUNS}.regularizer", {"kind": "l2", "strength": 1e-4, "alpha": 1.0}))
    said = "is read by group, group-l1-batchnorm only, and the kind is l2"
    assert refusal(text) == f"{RUNS}.regularizer.alpha: {said}"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            f"{VIEWS}.normalize.mean",
            [0.3, 0.3],
            "must have one entry for each channel of the images, 1, not [0.3, 0.3]",
        ),
        (f"{VIEWS}.normalize.std", [], "must have one entry for each channel of the images, 1, not []"),
        (
            "datasets.cifar.views.normalize.mean",
            [0.3],
            "must have one entry for each channel of the images, 3, not [0.3]",
        ),
        ("datasets.pets.source.test_fraction", NOTHING, "give exactly one of test and test_fraction"),
        ("datasets.pets.source.test", "images", "give exactly one of test and test_fraction"),
        ("datasets.pets.views.test", {"resize": 36, "center_crop": 40}, "must be at most resize, 36, not 40"),
    ],
)
def test_a_data_set_that_does_not_fit_together_is_refused(key: str, value: Any, said: str) -> None:
    where = {
        "datasets.pets.source": "datasets.pets.source",
        "datasets.pets.views": "datasets.pets.views.test.center_crop",
    }
    place = where.get(key.rpartition(".")[0], key)
    assert refusal(yaml.safe_dump(edited(key, value))) == f"{place}: {said}"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("build.0", "tinny", "no study is called 'tinny'; did you mean 'tiny'?"),
        ("build.0", "nosuch", "no study is called 'nosuch'; there is tiny"),
        (f"{STUDY}.protocol", "qick", "no protocol is called 'qick'; did you mean 'quick'?"),
        (f"{RUNS}.dataset", "digit", "no dataset is called 'digit'; did you mean 'digits'?"),
        (f"{RUNS}.dataset", "x", "no dataset is called 'x'; there is digits, cifar, pets"),
        (f"{ROWS}.0.runs", "us3", "no run is called 'us3'; did you mean 'us3l'?"),
        (f"{ROWS}.1.runs", {1.0: "wide"}, "no run is called 'wide'; there is us3l, narrow, pixels"),
        (f"{ROWS}.1.runs", {0.5: "us3l"}, "must be one of the study's widths, [1.0, 0.25]"),
        (f"{ROWS}.1.runs", {1.0: "narrow"}, "the run 'narrow' has the widths 0.25 to 0.25"),
        (f"{ROWS}.1.runs", {2.0: "us3l"}, "must be at most 1.0, not '2.0'"),
        (f"{ROWS}.1.runs", {"half": "us3l"}, "must be a number, not 'half'"),
        (f"{ROWS}.1.runs", {1.0: None}, "must be text, not null"),
    ],
)
def test_a_name_that_nothing_has_is_refused(key: str, value: Any, said: str) -> None:
    place = f"{key}.{next(iter(value))}" if isinstance(value, dict) else key
    assert refusal(yaml.safe_dump(edited(key, value), sort_keys=False)) == f"{place}: {said}"


# --- references -------------------------------------------------------------------------------------------------------


def referring(study: dict[str, Any] | None = None, **runs: Any) -> dict[str, Any]:
    """The content with more runs in its study, and a second study, `later`, with one seed more and no width 0.25.

    `later` has the runs of the first, other than the narrow one, and what `study` says otherwise.
    """
    made = content()
    made["protocols"]["near"] = {"kind": "knn"}
    first = made["studies"]["tiny"]
    few = {name: first["runs"][name] for name in ("us3l", "pixels")}
    changed = {"seeds": [0, 1], "widths": [1.0, 0.5], "tables": {}, "runs": few} | (study or {})
    made["studies"]["later"] = json.loads(json.dumps(first | changed))
    first["runs"] |= json.loads(json.dumps(runs))
    return made


def reuse(run: str, **more: Any) -> dict[str, Any]:
    return {"kind": "reuse", "weights_from": run, "dataset": "digits"} | more


def prune(run: str) -> dict[str, Any]:
    return {"kind": "prune", "weights_from": run, "criterion": "filters"}


def taught(teacher: str) -> dict[str, Any]:
    return RUN | {"method": RUN["method"] | {"momentum": None, "teacher": teacher}}


SAME = {"seeds": [0], "widths": [1.0, 0.25]}


@pytest.mark.parametrize(
    "run",
    [
        *(kind(name) for kind in (reuse, prune, taught) for name in ("us3l", "tiny/us3l", "later/us3l")),
        reuse("pixels"),
        reuse("narrow"),
        reuse("us3l", dataset="cifar", protocol="near", resources={"gpus": 1}),
        reuse("cut"),
        taught("taught"),
    ],
)
def test_a_run_may_take_weights_of_another_of_its_study_or_of_one_that_is_alike(run: dict[str, Any]) -> None:
    read(yaml.safe_dump(referring(SAME, x=run, cut=prune("us3l"), taught=taught("us3l"))))


@pytest.mark.parametrize("backbone", ["pixels", "vit-tiny", "vit-small", "vit-base"])
def test_a_network_without_batch_norms_behind_convolutions_is_not_pruned(backbone: str) -> None:
    plain = {"kind": "untrained", "dataset": "digits", "backbone": backbone}
    said = f"tiny/plain is of {backbone}, which has no BatchNorms behind convolutions to prune by"
    assert refusal(yaml.safe_dump(referring(plain=plain, x=prune("plain")))) == f"{STUDY}.runs.x.weights_from: {said}"


@pytest.mark.parametrize("backbone", ["resnet18", "cifar-mobilenetv2", "vit:small"])
def test_other_networks_and_ones_of_ones_own_may_be_pruned(backbone: str) -> None:
    read(yaml.safe_dump(referring(plain=RUN | {"backbone": backbone}, x=prune("plain"))))


def test_a_teacher_of_images_of_other_channels_is_refused() -> None:
    said = "tiny/us3l sees images of 1 channels, and those of cifar have 3"
    made = referring(x=taught("us3l") | {"dataset": "cifar"})
    assert refusal(yaml.safe_dump(made)) == f"{STUDY}.runs.x.method.teacher: {said}"
    made = referring(colour=RUN | {"dataset": "pets"}, x=taught("colour") | {"dataset": "cifar"})
    read(yaml.safe_dump(made))


NOT_TO_TAKE = "has no such weights of its own; name"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (reuse("us3"), "weights_from: the study 'tiny' has no run 'us3'; did you mean 'us3l'?"),
        (prune("late/us3l"), "weights_from: no study is called 'late'; did you mean 'later'?"),
        (taught("later/nosuch"), "method.teacher: the study 'later' has no run 'nosuch'; there is us3l, pixels"),
        (reuse("a/b/c"), "weights_from: must be the name of a run of this study, or study/run, not 'a/b/c'"),
        (taught("../x"), "method.teacher: must be the name of a run of this study, or study/run, not '../x'"),
        (reuse("us3l", dataset="digit"), "dataset: no dataset is called 'digit'; did you mean 'digits'?"),
        (reuse("us3l", protocol="nea"), "protocol: no protocol is called 'nea'; did you mean 'near'?"),
        (prune("us3l") | {"criterion": "l1"}, "criterion: must be 'filters' or 'batch-norm', not 'l1'"),
        (
            prune("us3l") | {"dataset": "digits"},
            "dataset: unknown key; there is kind, weights_from, criterion, resources",
        ),
        ({"kind": "reuse", "weights_from": "us3l"}, "dataset: is missing"),
        ({"kind": "prune", "weights_from": "us3l"}, "criterion: is missing"),
        (reuse("x"), "weights_from: weights go round in a circle: tiny/x from tiny/x"),
        (taught("tiny/x"), "method.teacher: weights go round in a circle: tiny/x from tiny/x"),
        (reuse("again"), f"weights_from: tiny/again {NOT_TO_TAKE} tiny/us3l, from which it takes them"),
        (prune("again"), f"weights_from: tiny/again {NOT_TO_TAKE} tiny/us3l, from which it takes them"),
        (prune("cut"), f"weights_from: tiny/cut {NOT_TO_TAKE} tiny/us3l, from which it takes them"),
        (taught("cut"), f"method.teacher: tiny/cut {NOT_TO_TAKE} tiny/us3l, from which it takes them"),
        (
            prune("narrow"),
            "weights_from: tiny/narrow has the widths 0.25 to 0.25; name a run that has the width 1.0, to be pruned",
        ),
    ],
)
def test_weights_that_cannot_be_taken_are_refused(run: dict[str, Any], said: str) -> None:
    made = referring(SAME, x=run, again=reuse("us3l"), cut=prune("us3l"))
    assert refusal(yaml.safe_dump(made, sort_keys=False)) == f"{STUDY}.runs.x.{said}"


@pytest.mark.parametrize(
    ("runs", "circle"),
    [
        ({"x": taught("y"), "y": taught("x")}, "tiny/x from tiny/y from tiny/x"),
        ({"x": taught("y"), "y": taught("z"), "z": taught("y")}, "tiny/x from tiny/y from tiny/z from tiny/y"),
    ],
)
def test_runs_that_teach_each_other_are_refused(runs: dict[str, Any], circle: str) -> None:
    said = f"weights go round in a circle: {circle}"
    assert refusal(yaml.safe_dump(referring(**runs), sort_keys=False)) == f"{STUDY}.runs.x.method.teacher: {said}"


@pytest.mark.parametrize("run", [reuse("later/us3l"), prune("later/us3l"), taught("later/us3l")])
def test_a_run_of_other_seeds_is_refused(run: dict[str, Any]) -> None:
    key = "weights_from" if "weights_from" in run else "method.teacher"
    said = "the study tiny has the seeds [0] and later has [0, 1]; each needs its counterpart"
    assert refusal(yaml.safe_dump(referring(x=run))) == f"{STUDY}.runs.x.{key}: {said}"
    read(yaml.safe_dump(referring(SAME | {"seeds": [0]}, x=run)))


def test_networks_of_widths_that_their_own_study_does_not_make_are_refused() -> None:
    made = referring({"seeds": [0]}, x=reuse("later/us3l"))
    said = "the study later does not evaluate the widths [0.25] of us3l; add them there"
    assert refusal(yaml.safe_dump(made)) == f"{STUDY}.runs.x.weights_from: {said}"
    made["studies"]["tiny"]["runs"]["x"] = prune("later/us3l")
    read(yaml.safe_dump(made))


def test_a_run_that_takes_networks_has_the_widths_of_those() -> None:
    made = referring(
        {"seeds": [0]}, wide=RUN | {"sampling": {"range": [1.0, 1.0], "widths_per_step": 1}}, x=reuse("wide")
    )
    table = made["studies"]["tiny"]["tables"]["main"]
    table["rows"].append({"label": "x", "runs": {0.25: "x"}})
    said = "the run 'x' has the widths 1.0 to 1.0"
    assert refusal(yaml.safe_dump(made)) == f"{ROWS}.2.runs.0.25: {said}"
    made["studies"]["tiny"]["widths"], table["rows"] = [0.5, 0.25], [{"label": "y", "runs": "narrow"}]
    said = "has the widths 1.0 to 1.0, but the study evaluates none of them, only [0.5, 0.25]"
    made["studies"]["tiny"]["runs"] = {"narrow": RUN, "x": reuse("later/wide")}
    made["studies"]["later"]["runs"]["wide"] = RUN | {"sampling": {"range": [1.0, 1.0], "widths_per_step": 1}}
    assert refusal(yaml.safe_dump(made)) == f"{STUDY}.runs.x: {said}"


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_of_two_kinds_of_protocol_is_refused() -> None:
    made = referring(near=reuse("us3l", protocol="near"))
    read(yaml.safe_dump(made))
    made["studies"]["tiny"]["tables"]["main"]["rows"].append({"label": "Near", "runs": "near"})
    what = (
        "has 'us3l', which linear evaluates, and 'near', which knn does; give each kind of protocol a table of its own"
    )
    assert refusal(yaml.safe_dump(made)) == f"{STUDY}.tables.main: {what}"
    made["protocols"]["near"] = made["protocols"]["quick"]
    read(yaml.safe_dump(made))


FIGURE = {"top1": 70.5, "source": "A paper, table 1"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rows.0.published", {0.5: FIGURE}, ".0.5: must be one of the study's widths, [1.0, 0.25]"),
        ("rows.0.published", {1.0: FIGURE | {"top1": 170}}, ".1.0.top1: must be at most 100.0, not 170"),
        ("rows.0.published", {1.0: FIGURE | {"top5": 90}}, ".1.0.top5: unknown key; did you mean 'top1'?"),
        ("rows.0.published", {1.0: {"top1": 70}}, ".1.0.source: is missing"),
        ("rows.0.published", {1.0: 70.5}, ".1.0: must be a mapping with the keys top1, source, not 70.5"),
        ("rows.0.published", {1.0: FIGURE, "1": FIGURE}, ": names a width twice; name each once"),
        ("published", "yes", ": must be a valid boolean, not 'yes'"),
    ],
)
def test_a_published_figure_needs_a_width_a_number_and_a_source(key: str, value: Any, said: str) -> None:
    text = yaml.safe_dump(edited(f"{STUDY}.tables.main.{key}", value))
    assert refusal(text) == f"{STUDY}.tables.main.{key}{said}"


@pytest.mark.parametrize("name", ["../x", "a/b", "a.b", "my run", "my_run", "US3L", "-a", "a-", "a--b", "é", ""])
@pytest.mark.parametrize("key", ["datasets.digits", "protocols.quick", STUDY, RUNS, f"{STUDY}.tables.main"])
def test_a_name_that_could_not_be_a_part_of_a_path_is_refused(name: str, key: str) -> None:
    made = content()
    *parents, last = key.split(".")
    place = made
    for part in parents:
        place = place[part]
    place[name] = place[last]
    assert refusal(yaml.safe_dump(made)) == f"{'.'.join([*parents, name])}: {NAME}, not {name!r}"


@pytest.mark.parametrize("key", ["datasets.digits", STUDY, RUNS, f"{STUDY}.tables.main"])
def test_a_name_that_is_too_long_for_a_file_is_refused(key: str) -> None:
    parent = key.rpartition(".")[0]
    for length in (100, 101):
        made, place = content(), (name := "x" * length)
        of_names: Any = made
        for part in parent.split("."):
            of_names = of_names[part]
        of_names[name] = of_names[key.rpartition(".")[2]]
        if length == 100:
            read(yaml.safe_dump(made))
    assert refusal(yaml.safe_dump(made)) == f"{parent}.{place}: must have at most 100 characters, not {name!r}"


@pytest.mark.parametrize("character", ["\n", "\t", "\x1b", "\0", "\x7f", "\x9b", "\u2028"])
@pytest.mark.parametrize("key", [f"{STUDY}.tables.main.title", "datasets.pets.source.train", f"{ROWS}.0.label"])
def test_text_with_a_control_character_is_refused(key: str, character: str) -> None:
    text = f"a{character}b"
    assert refusal(yaml.safe_dump(edited(key, text))) == f"{key}: must be one line of text, not {text!r}"


@pytest.mark.parametrize("name", ["2024", "010", "no", "null", "1e3"])
def test_a_name_is_taken_as_it_is_written(name: str) -> None:
    """YAML alone would make numbers, truth values and nothing of these."""
    text = yaml.safe_dump(edited(f"{STUDY}.runs.placeholder", RUN)).replace("placeholder", name)
    assert name in read(text).studies["tiny"].runs


@pytest.mark.parametrize("width", ["1", "1.0", '"1.0"', "1e0"])
def test_a_width_may_be_written_in_any_way(width: str) -> None:
    text = yaml.safe_dump(content()).replace("'1.0': us3l", f"{width}: us3l")
    assert read(text).studies["tiny"].tables["main"].rows[1].run_at(1.0) == "us3l"


def test_a_width_written_in_two_ways_is_refused() -> None:
    text = yaml.safe_dump(content()).replace("'0.25': narrow", "1: narrow")
    assert refusal(text) == f"{ROWS}.1.runs: names a width twice; name each once"


@pytest.mark.parametrize("number", ["5e-2", "5.0e-2", ".5e-1", "50E-3", "0.05"])
def test_a_number_may_be_written_with_an_exponent(number: str) -> None:
    text = yaml.safe_dump(content()).replace("lr: 0.05", f"lr: {number}")
    assert read(text).studies["tiny"].runs["us3l"].optimizer.lr == 0.05


@pytest.mark.parametrize(("epochs", "warmup"), [(400, 200), (400, 250), (5, 2), (1, 0)])
def test_the_regularizer_may_warm_up_for_any_number_of_epochs(epochs: int, warmup: int) -> None:
    made = content()
    regularizer = {"kind": "group", "strength": 5e-5, "warmup_epochs": warmup}
    made["studies"]["tiny"]["runs"]["us3l"] |= {"epochs": epochs, "regularizer": regularizer}
    read(yaml.safe_dump(made))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            f"the file: must be a mapping with the keys {KEYS}, not null",
        ),
        (
            "- a",
            f"the file: must be a mapping with the keys {KEYS}, not ['a']",
        ),
        (
            "build: [a\n: 3",
            "not readable as YAML: line 2, column 1: while parsing a flow sequence, did not find expected",
        ),
        ("build:\n\t- a", "not readable as YAML: line 2, column 1: while scanning for the next token, found character"),
        ("a: {b: 1, b: 2}", "not readable as YAML: line 1, column 11: the key 'b' is there twice in one mapping"),
        ("b: *a", "not readable as YAML: line 1, column 4: found undefined alias"),
        ("a: 1\n---\na: 2", "not readable as YAML: line 2, column 1: expected a single document in the stream, but"),
        (
            "build: !!python/name:os.system",
            "not readable as YAML: line 1, column 8: the tag 'tag:yaml.org,2002:python/name:os.system' asks for",
        ),
        ("build: [2020-13-01]", "not readable as YAML: month must be in 1..12"),
        (b"\xff\x00\xfe", "not readable as YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"build: \x00", "not readable as YAML: unacceptable character #x0000"),
    ],
)
def test_a_file_that_is_no_params_file_is_refused(text: str | bytes, said: str) -> None:
    assert refusal(text).startswith(said)


def test_a_merged_key_may_be_given_again() -> None:
    """`<<` brings what runs share; what stands beside it takes precedence."""
    text = yaml.safe_dump({"a": 1}) + "b: &b {x: 1, y: 1}\nc: &c {<<: *b, y: 2}\nd: {<<: *c, y: 3}\n"
    assert refusal(text) == f"a: unknown key; there is {KEYS}"


def test_a_list_that_holds_itself_is_refused() -> None:
    text = yaml.safe_dump(edited("build", "LOOP")).replace("LOOP", "&loop [*loop]")
    assert refusal(text) == "not readable as YAML: line 1, column 15: *loop stands within &loop"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nosuch.yaml", "no such file; run the command where params.yaml lies, or give --params"),
        ("folder", "not readable: Is a directory; give a YAML file"),
        ("file/params.yaml", "not readable: Not a directory; give a YAML file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(path: str, said: str) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(UserError) as caught:
        load(Path(path))
    assert str(caught.value) == f"{path}: {said}"
