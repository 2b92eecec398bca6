"""The official configuration files and the runs that stand for them, by docs/official-configs.md.

official_configs.csv has what the 65 files say (megvii-research/US3L-CVPR2023 at 394f681), the official defaults filled
in: `batch` is that of a GPU; `widths` are a list, or with `samples` the ends of a range.
"""

import csv
import re

import pytest
from project import ROOT

from us3l.models.backbones.backbone import Backbone
from us3l.models.heads import build_network
from us3l.models.meta import on_meta_device
from us3l.params.reading import load
from us3l.params.runs import PretrainRun
from us3l.params.sampling import FixedWidths
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan

PLAN = Plan(load(ROOT / "params.yaml"))
FILES = {row["file"]: row for row in csv.DictReader((ROOT / "tests/pipeline/official_configs.csv").open())}
TABLE = re.findall(r"^\| (\S+\.yaml) \| `(\S+)/(\S+)` \|", (ROOT / "docs/official-configs.md").read_text(), re.M)
RUNS = {file: (study, run) for file, study, run in TABLE}
TRAININGS = [file for file, row in FILES.items() if row["stage"] in ("pretraining", "supervised")]
EVALUATIONS = [file for file, row in FILES.items() if row["stage"] in ("linear", "finetune")]

# CosineSimilarityv2 is what the official code calls the negative of what is meant.
LOSSES = {
    "": None,
    "CosineSimilarity": "cosine",
    "CosineSimilarityv2": "cosine",
    "InfoNCEv2": "nt-xent",
    "InfoNCEv2_distill": "infonce",
    "soft_distill": "queue-soft-labels",
    "CrossEntropy": "cross-entropy",
    "soft targets": "soft-labels",
}
HEADS = {
    "": "supervised",
    "BYOL": "byol",
    "SimCLR": "simclr",
    "SimCLR_Momentum": "simclr",
    "SimSiam": "simsiam",
    "SimSiam_Momentum": "simsiam",
    "US_SimSiam": "simsiam",
    "MoCo": "moco",
    "SEED": "seed",
    "SEED_MSE": "byol",
}
# Where a run does not do what its file says, but what is meant.
MEANT = {
    **{f"cifar/us_{name}_cifar.yaml": {"name": "byol"} for name in ("mobilenetv2_seed", "resnet50_seed")},
    "cifar/us_resnet18_seed_mse_cifar.yaml": {"name": "byol"},
    "cifar/us_resnet_seed_infonce_cifar.yaml": {"name": "byol", "base_loss": "infonce"},
}


def run_of(file: str) -> RunPlan:
    return PLAN.run(*RUNS[file])


def test_the_table_has_each_of_the_65_files_once() -> None:
    assert len(TABLE) == len(FILES) == 65
    assert [file for file, *_ in TABLE] == list(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_a_run_with_its_backbone(file: str) -> None:
    arch = FILES[file]["arch"].removeprefix("us_").removeprefix("s_").removeprefix("usprune_")
    assert run_of(file).backbone == arch.replace("_", "-")


@pytest.mark.parametrize("file", TRAININGS)
def test_a_training_is_as_long_and_as_fast_as_its_file_says(file: str) -> None:
    run, official = run_of(file).run, FILES[file]
    assert run.epochs == int(official["epochs"])
    assert run.batch.size == int(official["batch"]) * run.batch.shards
    assert run.batch.shards in (4, 8)
    assert run.optimizer.lr == float(official["lr"])
    assert run.optimizer.schedule == official["schedule"] == "cosine"


@pytest.mark.parametrize("file", TRAININGS)
def test_a_training_keeps_its_weights_small_as_its_file_says(file: str) -> None:
    run, official = run_of(file).run, FILES[file]
    if official["group"]:
        groups = {"kind": "group", "strength": float(official["group"]), "warmup_epochs": int(official["warmup"])}
        assert groups.items() <= run.regularizer.model_dump().items()
    else:
        assert run.regularizer is None
        assert run.optimizer.weight_decay == float(official["weight_decay"])


@pytest.mark.parametrize("file", TRAININGS)
def test_a_training_sees_the_widths_that_its_file_says(file: str) -> None:
    sampling, official = run_of(file).run.sampling, FILES[file]
    widths = [float(width) for width in official["widths"].split()]
    if official["samples"]:
        assert list(sampling.range) == widths
        assert (sampling.widths_per_step, sampling.schedule) == (int(official["samples"]), official["sampling"])
        assert sampling.rule == "sandwich"
    elif isinstance(sampling, FixedWidths):
        assert sampling.widths == widths
    else:
        assert list(sampling.range) == widths * 2


@pytest.mark.parametrize("file", TRAININGS)
def test_a_training_has_the_heads_losses_and_teacher_that_its_file_says(file: str) -> None:
    method, official = run_of(file).run.method, FILES[file]
    base = "queue" if official["ssl"] == "MoCo" else LOSSES[official["base"]]
    expected = {"name": HEADS[official["ssl"]], "base_loss": base}
    expected |= {"momentum": float(official["momentum"]) if official["momentum"] else None}
    expected |= {"temperature": float(official["temperature"])} if official["temperature"] else {}
    if official["output"]:
        assert method.projector.output == int(official["output"])
    if official["distillation"]:
        expected["distillation_loss"] = LOSSES[official["distillation"]]
    if official["momentum"] and official["momentum_update"]:
        expected["momentum_update"] = official["momentum_update"]
    assert method.model_dump(include=expected.keys()) == expected | MEANT.get(file, {})
    assert (method.feature_distillation.layers if method.feature_distillation else []) == official["features"].split()
    assert (method.teacher is not None) == official["ssl"].startswith("SEED")


@pytest.mark.parametrize("file", EVALUATIONS)
def test_an_evaluation_has_the_protocol_that_its_file_says(file: str) -> None:
    run, official = run_of(file), FILES[file]
    protocol, optimizer = run.protocol, run.protocol.optimizer
    assert protocol.kind == official["stage"]
    assert (protocol.epochs, optimizer.lr) == (int(official["epochs"]), float(official["lr"]))
    assert optimizer.weight_decay == float(official["weight_decay"])
    assert optimizer.schedule == official["schedule"].lower()
    assert optimizer.milestones == [int(epoch) for epoch in official["milestones"].split()]
    assert protocol.batch_size in (4 * int(official["batch"]), 8 * int(official["batch"]))
    assert float(official["widths"]) in run.widths


def test_every_network_of_params_yaml_can_be_built() -> None:
    """Such as those that distil the features of a layer: the backbone must have it."""
    runs = [run.run for run in PLAN.runs.values() if isinstance(run.run, PretrainRun)]
    methods = {(repr(run.method), run.backbone): run for run in runs if run.method.feature_distillation}
    for run in methods.values():
        whole = lambda run=run: Backbone(run.backbone, 3).build(1.0)  # noqa: E731
        on_meta_device(lambda run=run, whole=whole: build_network(run.method, whole(), on_meta_device(whole), 10))
