"""Checkpoints of the official code: read without running them, every name accounted for, evaluated like our own."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from project import Project, params
from torch import Tensor

from us3l.models.backbones.backbone import Backbone
from us3l.models.official_checkpoint import expected_shapes, import_backbone, map_names, read
from us3l.models.saved_network import open_network
from us3l.utils import checkpoint
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

Tensors = dict[str, Tensor]
NAME, CHANNELS = "small-resnet", 1


def weights() -> Tensors:
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(shape, generator=generator) for key, shape in expected_shapes(NAME, CHANNELS).items()}


def whole_model(prefix: str = "module.") -> Tensors:
    """Build a state dict as workers/ssl.py saves it for BYOL with feature distillation."""
    others = ("encoder_q.fc.0.weight", "encoder_q.bn1.running_mean", "predictor.0.weight", "predictor_new.0.weight")
    others += ("encoder_k.fc.0.weight", "proj_conv.layer1.weight", "queue_ptr", "temperature")
    backbones = {f"encoder_{which}.{key}": value + (which == "k") for which in "qk" for key, value in weights().items()}
    return {prefix + key: value for key, value in {**backbones, **dict.fromkeys(others, torch.zeros(4))}.items()}


def save(path: Path, tensors: Any, **entries: Any) -> str:
    """Write a checkpoint like workers/ssl.py, and return its SHA-256."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {"epoch": 3, "arch": "us_small_resnet", "state_dict": tensors, "optimizer": optimizer}
    torch.save(content | entries, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(path: Path, sha256: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        import_backbone(path, sha256 or hashlib.sha256(path.read_bytes()).hexdigest(), NAME, CHANNELS)
    return str(error.value)


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_every_name_of_a_whole_model_is_accounted_for(prefix: str) -> None:
    mapped = map_names(whole_model(prefix), expected_shapes(NAME, CHANNELS))
    assert {key: value.tolist() for key, value in mapped.weights.items()} == {
        key: value.tolist() for key, value in weights().items()
    }
    count = len(mapped.weights)
    assert mapped.facts["left_out"] == {
        "momentum encoder": count + 1,
        "projector or classifier": 1,
        "running statistics, which calibration settles": 1,
        "predictor": 1,
        "predictor of the distillation": 1,
        "projections of the feature distillation": 1,
        "queue of negatives": 1,
    }
    assert mapped.left_over == [f"{prefix}temperature"]


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"state_dict": it}])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_bare_backbone_is_read_with_any_prefix(tmp_path: Path, wrap: Callable[..., Any], prefix: str) -> None:
    path = tmp_path / "bare.pth"
    torch.save(wrap({f"{prefix}{key}": value for key, value in weights().items()}), path)
    mapped = import_backbone(path, read(path).sha256, NAME, CHANNELS)
    assert mapped.weights.keys() == weights().keys()


def test_missing_extra_and_misshaped_tensors_are_named_and_counted(tmp_path: Path) -> None:
    path, fits = tmp_path / "checkpoint.pth.tar", whole_model()
    first, second = (f"module.encoder_q.{key}" for key in list(weights())[:2])
    without = {key: value for key, value in fits.items() if key not in (first, second)}
    cases = {
        f"{first.removeprefix('module.encoder_q.')} is missing (2 such": without,
        "module.encoder_q.layer9.weight is extra (1 such": fits | {"module.encoder_q.layer9.weight": torch.zeros(1)},
        f"{first} is extra (1 such": {first.removeprefix("module."): fits[first], **fits},
        f"{first}, (2, 2) instead of": fits | {first: torch.zeros(2, 2)},
        "it asks to run torch._utils._rebuild_sparse_tensor": fits | {first: fits[first].to_sparse()},
        "it asks to run torch._utils._rebuild_meta_tensor_no_storage": fits | {first: fits[first].to("meta")},
        "torch.int64 instead of": fits | {first: fits[first].long()},
        "is not finite (1 such": fits | {first: fits[first] * float("nan")},
        f"{next(iter(weights()))} is missing ({len(weights())} such; 0 tensors fit)": {
            key.replace("encoder_q", "encoder"): value for key, value in fits.items() if "encoder_k" not in key
        }
        | {"module.encoder_q.fc.bias": torch.zeros(1)},
    }
    for said, tensors in cases.items():
        save(path, tensors)
        assert said in refusal(path)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "checkpoint.pth.tar", tmp_path / "made"
    torch.save({"state_dict": weights(), "x": Malicious(target)}, path, _use_new_zipfile_serialization=zipped)
    assert refusal(path).startswith(f"{path}: refused: it asks to run posix.mkdir")
    assert not target.exists()


def test_what_is_no_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    path, buffer = tmp_path / "checkpoint.pth.tar", io.BytesIO()
    torch.save({"state_dict": weights()}, buffer)
    for content in (b"", b"hello world", buffer.getvalue()[:300], buffer.getvalue()[:-30]):
        path.write_bytes(content)
        said = refusal(path)
        assert said.startswith(f"{path}: not a whole PyTorch checkpoint (") and said.endswith(
            "); download or copy it again"
        )
    for tensors in ({}, [1], {"conv1.weight": 3}):
        save(path, tensors)
        assert "must hold tensors by name" in refusal(path)


def test_another_file_and_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    assert "No such file" in refusal(path, "0" * 64)
    found = save(path, whole_model())
    assert f"its sha256 is {found}, not {'0' * 64}" in refusal(path, "0" * 64)


def test_an_imported_checkpoint_is_evaluated_like_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    content, path = params(), Path("checkpoint.pth.tar")
    found = save(path, whole_model())
    run = {"kind": "import", "checkpoint": str(path), "sha256": found, "dataset": "digits", "backbone": NAME}
    content["studies"]["tiny"]["runs"]["us3l"] = run
    Project(tmp_path, content)
    for command in ("prepare digits", "pretrain tiny us3l 0", "calibrate tiny us3l 0", "linear tiny us3l 0"):
        assert us3l(*command.split())[0] == 0
    assert us3l("table", "tiny", "main")[0] == 0
    record = read_record(Path("results/tiny/pretrain/us3l/seed0.json"))
    assert record["params"]["run"]["sha256"] == found and record["official"]["mapped"] == len(weights())
    narrow = open_network(Path("results/tiny/networks/us3l/seed0-w025.safetensors"))[0]
    plain = Backbone(NAME, CHANNELS).build(0.25).train()
    with torch.no_grad():
        for key, value in plain.named_parameters():
            value.copy_(weights()[key][tuple(slice(size) for size in value.shape)])
    images = torch.randn(4, CHANNELS, 8, 8)
    assert torch.equal(narrow.train()(images), plain(images))


def test_the_command_prints_a_run_and_writes_the_backbone(
    tmp_path: Path, us3l: Callable[..., tuple[int, str, str]]
) -> None:
    path, output = tmp_path / "checkpoint.pth.tar", tmp_path / "ours.safetensors"
    found = save(path, whole_model(), best_acc=1.0)
    options = ("--backbone", NAME, "--channels", "1", "--write", str(output))
    code, said, _ = us3l("import-official", str(path), *options)
    assert code == 0 and f"mapped: {len(weights())} tensors of {NAME}" in said
    assert "left over: module.temperature, best_acc" in said and "left out: state of the optimizer" in said
    run = yaml.safe_load(said.split("\n\n")[1])["official"]
    assert run["sha256"] == found and run["checkpoint"] == str(path) and run["range"] == [0.25, 1.0]
    tensors, _ = checkpoint.load(output)
    assert {key.removeprefix("backbone.") for key in tensors} == weights().keys()
    assert us3l("import-official", str(path), "--backbone", "resnet18")[0] == 2


@pytest.mark.parametrize("name", ["resnet", "pixels", "vit-tiny"])
def test_a_backbone_that_no_official_checkpoint_is_read_as_is_refused(
    tmp_path: Path, us3l: Callable[..., tuple[int, str, str]], name: str
) -> None:
    code, _, said = us3l("import-official", str(tmp_path / "any.pth.tar"), "--backbone", name)
    assert code == 2 and f"there is no backbone '{name}' to import" in said
    assert "checkpoints of vision transformers are not read, those of small-resnet, cifar-resnet18," in said
    with pytest.raises(UserError, match=f"there is no backbone '{name}' to import"):
        import_backbone(tmp_path / "any.pth.tar", "0" * 64, name, 3)


def test_a_range_that_leaves_out_the_widest_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = params()
    run = {"kind": "import", "checkpoint": "x", "sha256": "0" * 64, "dataset": "digits", "backbone": NAME}
    content["studies"]["tiny"]["runs"]["us3l"] = run | {"range": [0.25, 0.5]}
    Project(tmp_path, content)
    code, _, said = us3l("plan")
    assert code == 2 and "must end at 1.0" in said, json.dumps(said)
