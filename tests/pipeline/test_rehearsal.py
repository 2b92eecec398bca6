"""Small runs of every method pass their stages on the rehearsed GPU (tests/support/rehearsal.py), and compute the same.

The stages pretrain, with its probe, calibrate and evaluate run whole, from open images to records. Prepare and table
use no PyTorch. Of the command line around them, the lease of a GPU and several processes are not rehearsed.
"""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from mutations import ALONE, BASE, BLURRED, COLOURS, CROP, VARIANTS, Variant
from rehearsal import CPU, GPU, rehearsal
from stages import make, small_stages
from tiny import tiny

from us3l.losses.feature_maps import FEATURE_LOSSES
from us3l.losses.registry import LOSSES
from us3l.params.method import Method
from us3l.params.optimizer import Regularizer
from us3l.params.params import Params
from us3l.params.protocols.protocol import KINDS
from us3l.params.runs import PretrainRun
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.probes.comparison import FLOAT64
from us3l.pipeline.stages import pretrain
from us3l.training.optimizers import OPTIMIZERS
from us3l.utils.records import read_record

pytest.importorskip("triton", reason="PyTorch comes with Triton on Linux only")

OWN = """
import torch
from torch import nn


class Own(nn.Sequential):
    def __init__(self, width):
        channels = round(16 * width)
        super().__init__(nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return super().forward(x).flatten(1) * self.scale


def own(width):
    return Own(width)
"""
SIMCLR = {"name": "simclr", "base_loss": "infonce", **BASE}
COLOURED = {"normalize": {"mean": [0.3] * 3, "std": [0.4] * 3}, "pretrain": [BLURRED | COLOURS, CROP | COLOURS]}
FEATURES = {"layers": ["layer1"], "loss": "mse", "strength": 0.5}
CASES = VARIANTS | {
    "custom": Variant({"backbone": "own:own", "method": SIMCLR}, protocol={"kind": "knn", "neighbours": 20}),
    "features-mse": Variant(
        {"method": {**SIMCLR, "feature_distillation": FEATURES}}, protocol={"kind": "knn", "neighbours": 20}
    ),
    "files": Variant(
        {"method": {"name": "simsiam", "base_loss": "cosine", **ALONE}, "sampling": 1.0},
        protocol={"kind": "knn", "neighbours": 20},
        views=COLOURED | {"linear": BLURRED, "test": {"resize": 10, "center_crop": 8}},
        pictures=True,
    ),
}
BFLOAT16 = ("byol", "moco", "moco-v3", "relations", "supervised", "custom", "pictures")


def content(name: str) -> dict[str, Any]:
    made = CASES[name].params()
    made["studies"]["tiny"]["runs"]["us3l"]["precision"] = "bfloat16" if name in BFLOAT16 else "float32"
    if name == "files":
        made["datasets"]["digits"]["source"]["image_size"] = None
    return made


def plan(name: str) -> Plan:
    return Plan(Params.model_validate(content(name)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    made = tmp_path_factory.mktemp("rehearsal")
    (made / "own.py").write_text(OWN)
    with small_stages(made):
        yield


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", CASES)
def test_a_run_passes_all_its_stages(name: str) -> None:
    for run in map(tiny, plan(name).runs.values()):
        with rehearsal():
            make(run, GPU)
        records = [read_record(path) for path in run.evaluation_records(0)]
        assert all(record["hardware"]["gpu"] == "rehearsed" and record["macs"] >= 0 for record in records)
        if isinstance(run.run, PretrainRun):
            check_probe(run)


def check_probe(run: RunPlan) -> None:
    """The probe's losses are those of the CPU, in float64, where both round too little to be told apart."""
    probe, expected = read_record(run.training_record(0))["probe"], pretrain.probe(RunStage(run, "pretrain", 0), CPU)
    found, on_cpu = (each[FLOAT64]["epoch_0"]["step_0"]["loss_and_feature_std"] for each in (probe, expected))
    assert found == [pytest.approx(each, rel=1e-4, abs=1e-3) for each in on_cpu]


def test_every_kind_of_part_is_rehearsed() -> None:
    runs = [tiny(run) for name in CASES if name != "custom" for run in plan(name).runs.values()]
    trainings = [run.run for run in runs if isinstance(run.run, PretrainRun)]
    assert {each.method.name for each in trainings} == kinds(Method, "name")
    assert set().union(*(each.method.losses for each in trainings)) == LOSSES.keys()
    distilled = [each.method.feature_distillation for each in trainings]
    assert {each.loss for each in distilled if each} == FEATURE_LOSSES.keys()
    assert {each.regularizer.kind for each in trainings if each.regularizer} == kinds(Regularizer, "kind")
    assert {each.optimizer.kind for each in trainings} == OPTIMIZERS.keys()
    assert {run.protocol.kind for run in runs} == KINDS.keys()
    assert {each.precision for each in trainings} == kinds(PretrainRun, "precision")


def kinds(model: Any, field: str) -> set[str]:
    return set(get_args(model.model_fields[field].annotation))
