"""Checkpoints that others published: read without running them, every name accounted for, evaluated like our own."""

import hashlib
import io
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import published
import pytest
import torch
import yaml
from project import Project, params
from published import Model, of_slimmable_networks, s_nets, slimclr, trained, us_nets
from torch import Tensor

from us3l.models.backbones.backbone import Backbone
from us3l.models.published.file import read
from us3l.models.published.layouts import LAYOUTS, recognise
from us3l.models.published.matching import import_backbone, map_names
from us3l.models.saved_network import open_network
from us3l.models.slimmable import narrow, switch_batch_norms
from us3l.utils import checkpoint
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

Tensors = dict[str, Tensor]
Command = Callable[..., tuple[int, str, str]]
NAME, CHANNELS = "small-resnet", 1
SMALL = Backbone(NAME, CHANNELS)
FOUR = (1.0, 0.75, 0.5, 0.25)
TRAINING = ("encoder_q.fc.0.weight", "encoder_k.conv1.weight", "queue_ptr")


def weights() -> Tensors:
    return published.us3l(SMALL).ours


def whole_model(prefix: str = "module.") -> Tensors:
    """Build a state dict as workers/ssl.py saves it for BYOL with feature distillation."""
    others = ("encoder_q.fc.0.weight", "encoder_q.bn1.running_mean", "predictor.0.weight", "predictor_new.0.weight")
    others += ("encoder_k.fc.0.weight", "proj_conv.layer1.weight", "queue_ptr", "temperature")
    backbones = {f"encoder_{which}.{key}": value + (which == "k") for which in "qk" for key, value in weights().items()}
    return {prefix + key: value for key, value in {**backbones, **dict.fromkeys(others, torch.zeros(4))}.items()}


def save(path: Path, tensors: Any, **entries: Any) -> str:
    """Write a checkpoint like workers/ssl.py, and return its SHA-256."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return write(path, {"epoch": 3, "arch": "us_small_resnet", "state_dict": tensors, "optimizer": optimizer} | entries)


def write(path: Path, content: Any) -> str:
    torch.save(content, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def imported(path: Path, backbone: Backbone = SMALL, widths: Any = None, narrowest: float = 0.25) -> Tensors:
    return import_backbone(path, hashlib.sha256(path.read_bytes()).hexdigest(), backbone, widths, narrowest)[0]


def refusal(path: Path, backbone: Backbone = SMALL, widths: Any = None, narrowest: float = 0.25) -> str:
    with pytest.raises(UserError) as error:
        imported(path, backbone, widths, narrowest)
    assert "\n" not in str(error.value)
    return str(error.value)


def require_equal(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], each) for name, each in expected.items())


# --- US3L -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_every_name_of_a_whole_model_is_accounted_for(tmp_path: Path, prefix: str) -> None:
    tensors = whole_model(prefix)
    mapped = map_names(tensors, recognise(tmp_path, tensors), SMALL)
    require_equal(mapped.weights, weights())
    count = len(mapped.weights)
    assert mapped.facts == {
        "layout": "US3L",
        "mapped": count,
        "left_out": {
            "momentum encoder": count + 1,
            "projector or classifier": 1,
            "running statistics, which calibration settles": 1,
            "predictor": 1,
            "predictor of the distillation": 1,
            "projections of the feature distillation": 1,
            "queue of negatives": 1,
        },
        "left_over": [f"{prefix}temperature"],
    }


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"state_dict": it}, lambda it: {"model": it}])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_bare_backbone_is_read_with_any_prefix(tmp_path: Path, wrap: Callable[..., Any], prefix: str) -> None:
    path = tmp_path / "bare.pth"
    write(path, wrap({f"{prefix}{key}": value for key, value in weights().items()}))
    require_equal(imported(path), weights())


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


# --- the layouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoder", "others"),
    [
        (NAME, "encoder_q.", TRAINING),
        (NAME, "base_encoder.", ("momentum_encoder.conv1.weight", "base_encoder.fc.1.bn.0.running_mean")),
        (NAME, "", ("fc.linears.0.weight",)),
        ("resnet50", "encoder_q.", TRAINING),
    ],
    ids=["MoCo v2", "MoCo v3", "linear evaluation", "ResNet-50"],
)
def test_slimclr_is_read_from_any_of_its_models(
    tmp_path: Path, name: str, encoder: str, others: tuple[str, ...]
) -> None:
    path, backbone = tmp_path / "slimclr.pth.tar", Backbone(name, CHANNELS)
    widths = FOUR if name == NAME else (1.0, 0.25)
    model = slimclr(backbone, widths)
    save(path, trained(model, encoder, *others))
    require_equal(imported(path, backbone, widths), model.ours)


@pytest.mark.parametrize("name", [NAME, "resnet50", "cifar-mobilenetv1", "cifar-mobilenetv2"])
def test_s_nets_are_read_with_widths_in_any_order(tmp_path: Path, name: str) -> None:
    path, backbone = tmp_path / "s.pt", Backbone(name, CHANNELS)
    widths = (0.25, 1.0) if name == "resnet50" else (0.35, 1.0, 0.5, 0.75)
    model = s_nets(backbone, widths)
    write(path, of_slimmable_networks(model))
    require_equal(imported(path, backbone, sorted(widths)), model.ours)


def test_switchable_batch_norms_of_us3l_are_read(tmp_path: Path) -> None:
    """Its S-Nets number BatchNorms by width, widest first, among names that are ours."""
    path, model = tmp_path / "s.pth.tar", slimclr(SMALL, FOUR)
    blocks = ["layer1.0", "layer2.0", "layer3.0"]
    tensors = {
        re.sub(r"features\.(\d)", lambda found: blocks[int(found[1])], name).replace("shortcut", "downsample"): each
        for name, each in model.theirs.items()
    }
    save(path, {f"module.encoder_q.{name}": each for name, each in tensors.items()})
    assert recognise(path, tensors).title == "US3L"
    require_equal(imported(path, SMALL, FOUR), model.ours)


def test_a_number_of_any_length_in_a_name_is_no_number(tmp_path: Path) -> None:
    path, digits = tmp_path / "x.pt", "9" * 5000
    write(
        path, weights() | {f"features.{digits}.conv1.weight": torch.zeros(1), f"bn1.bn.{digits}.weight": torch.zeros(1)}
    )
    assert "is extra (2 such" in refusal(path)
    write(path, s_nets(SMALL, FOUR).theirs | {f"features.{digits}.body.0.weight": torch.zeros(1)})
    assert "is extra (1 such" in refusal(path, widths=FOUR)


@pytest.mark.parametrize("name", ["cifar-mobilenetv1", "cifar-mobilenetv2"])
def test_us_nets_are_read_for_ranges_that_begin_where_their_statistics_do(tmp_path: Path, name: str) -> None:
    path, backbone = tmp_path / "us.pt", Backbone(name, CHANNELS)
    model = us_nets(backbone, (0.35, 0.5, 1.0))
    write(path, of_slimmable_networks(model))
    for narrowest in (0.35, 0.5):
        require_equal(imported(path, backbone, narrowest=narrowest), model.ours)
    said = refusal(path, backbone, narrowest=0.25)
    assert "channels at its narrowest width, and 8 at 0.25, where its range must not begin" in said


class ScalarMeter:
    """Stands beside the tensors in what the training of slimmable_networks saves last."""

    def __init__(self) -> None:
        self.values = [0.5]


ScalarMeter.__module__ = "utils.meters"


@pytest.mark.parametrize("zipped", [True, False])
def test_meters_beside_the_tensors_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    path, model = tmp_path / "latest_checkpoint.pt", s_nets(SMALL, FOUR)
    content = of_slimmable_networks(model) | {"meters": ({"1.0": {"loss": ScalarMeter()}}, None)}
    monkeypatch.setitem(sys.modules, "utils", ModuleType("utils"))
    monkeypatch.setitem(sys.modules, "utils.meters", sys.modules[__name__])
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    require_equal(imported(path, SMALL, FOUR), model.ours)


def test_numbers_of_widths_say_nothing_about_their_order(tmp_path: Path) -> None:
    model, path = s_nets(SMALL, (0.5, 0.25, 1.0)), tmp_path / "s.pt"
    write(path, model.theirs)
    for widths in ((0.25, 0.5, 1.0), (1.0, 0.5, 0.25)):
        require_equal(imported(path, SMALL, widths), model.ours)


def test_widths_and_files_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    write(path, s_nets(SMALL, FOUR).theirs)
    assert "has BatchNorms of its own for each of 4 widths" in refusal(path)
    assert "has BatchNorms for 4 widths, not for the 3 that are named" in refusal(path, widths=[1.0, 0.5, 0.25])
    said = refusal(path, widths=[1.0, 0.9, 0.5, 0.25])
    assert "bn1.weight has 24 channels, as none of the widths 1.0, 0.9, 0.5, 0.25 has" in said
    said = refusal(path, widths=[1.0, 0.75, 0.25, 0.26])
    assert "as none of the widths" in said
    write(path, s_nets(SMALL, (1.0, 0.75, 0.25, 0.25)).theirs)
    assert "more than one of its widths may be 0.26" in refusal(path, widths=[1.0, 0.75, 0.26, 0.25])
    write(path, weights())
    assert "has the same BatchNorms for all widths: it takes a range" in refusal(path, widths=[1.0, 0.5])


def test_batch_norms_that_a_width_lacks_or_that_stand_twice_are_named(tmp_path: Path) -> None:
    path, fits = tmp_path / "s.pt", s_nets(SMALL, FOUR).theirs
    write(path, {name: each for name, each in fits.items() if name != "features.2.body.1.bn.3.bias"})
    assert "layer2.0.bn1.bias of the width with number 3 is missing (1 such" in refusal(path, widths=FOUR)
    write(path, fits | {"features.2.body.1.bias": torch.zeros(64)})
    assert "layer2.0.bn1.bias is extra (1 such" in refusal(path, widths=FOUR)
    write(path, fits | {"features.2.body.0.bn.0.weight": torch.zeros(64)})
    assert "features.2.body.0.bn.0.weight is extra (1 such" in refusal(path, widths=FOUR)
    write(path, fits | {"features.2.body.1.bn.0.weight": torch.zeros(64) / 0})
    assert "layer2.0.bn1.weight is not finite (1 such" in refusal(path, widths=FOUR)
    write(path, fits | {"features.2.body.1.bn.0.weight": torch.zeros(2, 2)})
    assert "(2, 2) instead of one number for each channel" in refusal(path, widths=FOUR)


def test_a_network_with_channels_of_its_own_may_be_autoslims(tmp_path: Path) -> None:
    path, model = tmp_path / "autoslim.pt", s_nets(SMALL, FOUR)
    write(path, model.theirs | {"features.2.body.0.weight": torch.zeros(40, 32, 3, 3)})
    said = refusal(path, widths=FOUR)
    assert "not a small-resnet for images of 1 channels in the layout of S-Nets: features.2.body.0.weight" in said
    assert said.endswith("AutoSlim's networks, which have these names and channels of their own, are not read")


def test_a_shufflenet_is_refused_by_its_name(tmp_path: Path) -> None:
    path, model = tmp_path / "s.pt", s_nets(SMALL, FOUR)
    write(path, model.theirs | {"features.1.a_0.0.weight": torch.zeros(1)})
    said = "holds an S-ShuffleNet, a network that there is not here; read are the checkpoints of US3L, SlimCLR, S-Nets"
    assert said in refusal(path, widths=FOUR)


@pytest.mark.parametrize("make", [published.us3l, lambda it: slimclr(it, FOUR), lambda it: s_nets(it, FOUR)])
def test_another_backbone_than_the_files_is_refused(tmp_path: Path, make: Callable[[Backbone], Model]) -> None:
    path = tmp_path / "x.pt"
    write(path, make(SMALL).theirs)
    for name in ("cifar-resnet18", "cifar-mobilenetv2"):
        assert re.search(f"not a {name} for images of 1 channels.*such", refusal(path, Backbone(name, 1), FOUR))
    assert "not a small-resnet for images of 3 channels" in refusal(path, Backbone(NAME, 3), FOUR)


def test_every_layout_is_told_by_names_alone(tmp_path: Path) -> None:
    mobile = Backbone("cifar-mobilenetv2", 1)
    names = {
        "US3L": weights(),
        "SlimCLR": slimclr(SMALL, FOUR).theirs,
        "S-Nets": s_nets(SMALL, FOUR).theirs,
        "US-Nets": us_nets(mobile, (1.0,)).theirs,
    }
    for title, tensors in names.items():
        for prefix in ("", "module.", "module.encoder_q."):
            assert recognise(tmp_path, [prefix + name for name in tensors]).title == title
    assert {layout.title for layout in LAYOUTS} == names.keys() | {"S-ShuffleNet"}


# --- files that are none --------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "checkpoint.pth.tar", tmp_path / "made"
    for key in ("state_dict", "model"):
        torch.save({key: weights(), "x": Malicious(target)}, path, _use_new_zipfile_serialization=zipped)
        assert refusal(path).startswith(f"{path}: refused: it asks to run posix.mkdir")
        assert not target.exists()


def test_what_is_no_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    path, buffer = tmp_path / "checkpoint.pth.tar", io.BytesIO()
    torch.save({"model": weights()}, buffer)
    flipped = bytearray(buffer.getvalue())
    flipped[len(flipped) // 2] ^= 1
    photograph = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256))
    for content in (b"", b"hello world", photograph, buffer.getvalue()[:300], buffer.getvalue()[:-30], flipped):
        path.write_bytes(content)
        said = refusal(path)
        assert said.startswith(f"{path}: not a whole PyTorch checkpoint (") and said.endswith(
            "); download or copy it again"
        )
    for tensors in ({}, [1], {"conv1.weight": 3}):
        save(path, tensors)
        assert "must hold tensors by name" in refusal(path)


def test_an_archive_around_a_checkpoint_is_to_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "us_mobilenet_v1_calibrated.pt.zip"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as made:
            made.writestr("us_mobilenet_v1_calibrated.pt", bytes(1000))
        assert "it is an archive around other files: unpack it, and take the one in it" in refusal(path)


def test_another_file_and_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    with pytest.raises(UserError, match="No such file"):
        read(path)
    found = save(path, whole_model())
    with pytest.raises(UserError, match=f"its sha256 is {found}, not {'0' * 64}"):
        read(path, "0" * 64)


# --- runs -----------------------------------------------------------------------------------------------------------


MOBILE = Backbone("cifar-mobilenetv1", CHANNELS)
RUNS: dict[str, Callable[[], tuple[Backbone, Model, Any, dict[str, Any]]]] = {
    "US3L": lambda: (
        SMALL,
        (made := published.us3l(SMALL)),
        {"state_dict": trained(made, "encoder_q.", *TRAINING)},
        {},
    ),
    "SlimCLR": lambda: (
        SMALL,
        (made := slimclr(SMALL, FOUR)),
        {"state_dict": trained(made, "encoder_q.", *TRAINING)},
        {"widths": [0.25, 0.5, 0.75, 1.0]},
    ),
    "S-Nets": lambda: (SMALL, (made := s_nets(SMALL, FOUR)), of_slimmable_networks(made), {"widths": [*FOUR]}),
    "US-Nets": lambda: (
        MOBILE,
        (made := us_nets(MOBILE, (0.25, 1.0))),
        of_slimmable_networks(made),
        {"range": [0.25, 1.0]},
    ),
}


@pytest.mark.parametrize("layout", RUNS)
def test_an_imported_checkpoint_is_calibrated_evaluated_chosen_and_exported_like_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Command, layout: str
) -> None:
    monkeypatch.chdir(tmp_path)
    backbone, model, saved, widths = RUNS[layout]()
    content, path = params(), Path("checkpoint.pth.tar")
    run = {"kind": "import", "checkpoint": str(path), "sha256": write(path, saved), "dataset": "digits"}
    content["studies"]["tiny"]["runs"]["us3l"] = run | {"backbone": backbone.name} | widths
    Project(tmp_path, content)
    for command in ("prepare digits", "pretrain tiny us3l 0", "calibrate tiny us3l 0", "linear tiny us3l 0"):
        assert us3l(*command.split())[0] == 0
    assert us3l("table", "tiny", "main")[0] == 0
    record = read_record(Path("results/tiny/pretrain/us3l/seed0.json"))
    assert record["params"]["run"]["sha256"] == run["sha256"]
    assert record["imported"]["layout"] == layout and record["imported"]["mapped"] == len(model.ours)
    calibrated = open_network(Path("results/tiny/networks/us3l/seed0-w025.safetensors"))[0]
    plain = narrow(switch_batch_norms(model.ours, 0.25), backbone.build(0.25))
    images = torch.randn(4, CHANNELS, 8, 8)
    assert torch.equal(calibrated.train()(images), plain.train()(images))
    code, said, _ = us3l("choose", "tiny", "us3l", "--parameters", "0.3M")
    assert code == 0 and said.startswith({"US3L": "width 0.96: ", "US-Nets": "width 0.3: "}.get(layout, "width 0.75: "))
    assert us3l("export", "tiny", "us3l", "0", "--width", "0.25", "--head", "--formats", "", "--out", "out")[0] == 0
    code, _, said = us3l("slices", "tiny", "us3l", "--widths", "0.2")
    assert code == 2 and f"trained at the widths {', '.join(map(str, widths.get('widths', ())))}" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"range": [0.25, 0.5]}, "range: must end at 1.0, the width of the weights in a checkpoint, not 0.5"),
        ({"widths": [0.25, 0.5]}, "widths: must have 1.0, the width of the weights in a checkpoint, not 0.5"),
        ({"range": [0.25, 1.0], "widths": [0.25, 1.0]}, "widths: must not stand beside range"),
        ({"widths": [1.0, 0.5, 0.5]}, "names a width twice"),
        ({"widths": []}, "widths: "),
    ],
)
def test_widths_of_a_run_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Command, given: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = params()
    run = {"kind": "import", "checkpoint": "x", "sha256": "0" * 64, "dataset": "digits", "backbone": NAME}
    content["studies"]["tiny"]["runs"]["us3l"] = run | given
    Project(tmp_path, content)
    code, _, error = us3l("plan")
    assert code == 2 and said in error


# --- the command ----------------------------------------------------------------------------------------------------


def entry(said: str) -> dict[str, Any]:
    return yaml.safe_load(said.split("\n\n")[1])["imported"]


def test_the_command_prints_a_run_and_writes_the_backbone(tmp_path: Path, us3l: Command) -> None:
    path, output = tmp_path / "checkpoint.pth.tar", tmp_path / "ours.safetensors"
    found = save(path, whole_model(), best_acc=1.0)
    options = ("--backbone", NAME, "--channels", "1", "--write", str(output))
    code, said, _ = us3l("import", str(path), *options)
    assert code == 0 and f"layout: US3L\nmapped: {len(weights())} tensors of {NAME}" in said
    assert "left over: module.temperature, best_acc" in said and "left out: state of the optimizer" in said
    run = entry(said)
    assert run["sha256"] == found and run["checkpoint"] == str(path) and run["range"] == [0.25, 1.0]
    require_equal(written(output), weights())
    assert us3l("import", str(path), "--backbone", "resnet18")[0] == 2


def written(path: Path) -> Tensors:
    return {name.removeprefix("backbone."): each for name, each in checkpoint.load(path)[0].items()}


def test_the_command_finds_widths_by_channels(tmp_path: Path, us3l: Command) -> None:
    path, output = tmp_path / "x.pt", tmp_path / "ours.safetensors"
    mobile = Backbone("cifar-mobilenetv2", 1)
    model, options = s_nets(mobile, (0.35, 0.5, 0.75, 1.0)), ("--backbone", mobile.name, "--channels", "1")
    write(path, of_slimmable_networks(model))
    code, said, _ = us3l("import", str(path), *options, "--write", str(output))
    assert code == 0 and "layout: S-Nets" in said and entry(said)["widths"] == [1.0, 0.75, 0.5, 0.35]
    require_equal(written(output), model.ours)
    write(path, of_slimmable_networks(us_nets(mobile, (1.0, 0.35, 0.5))))
    code, said, _ = us3l("import", str(path), *options)
    assert code == 0 and "layout: US-Nets" in said and entry(said)["range"] == [0.35, 1.0]


def test_the_command_takes_widths_that_are_unusual(tmp_path: Path, us3l: Command) -> None:
    path, backbone = tmp_path / "x.pt", Backbone("cifar-resnet18", 1)
    model = slimclr(backbone, (1.0, 0.36))
    output, options = tmp_path / "ours.safetensors", ("--backbone", backbone.name, "--channels", "1")
    write(path, model.theirs)
    code, _, said = us3l("import", str(path), *options)
    assert (
        code == 2
        and "as no width from 0.25 to 1.0 in steps of 0.025 has; say the widths of the file with --widths" in said
    )
    code, said, _ = us3l("import", str(path), *options, "--widths", "1,0.36", "--write", str(output))
    assert code == 0 and entry(said)["widths"] == [1.0, 0.36]
    require_equal(written(output), model.ours)
    for widths, refused in (
        ("1,2", "give widths from 0.25 to 1.0"),
        ("1,x", "widths with commas"),
        ("1", "for 2 widths"),
    ):
        code, _, said = us3l("import", str(path), *options, "--widths", widths)
        assert code == 2 and refused in said and said.count("\n") == 1


def test_the_command_says_what_no_tensor_tells(tmp_path: Path, us3l: Command) -> None:
    """Parts of the widest network that do not overlap have, for widths of at most 2 together, the same shapes."""
    path = tmp_path / "x.pt"
    for widths, doubtful in ((FOUR, False), ((1.0, 0.5, 0.25), True)):
        write(path, slimclr(SMALL, widths).theirs)
        code, said, _ = us3l("import", str(path), "--backbone", NAME, "--channels", "1")
        assert code == 0 and ("overlap_weight=True" in said) == doubtful


def test_the_command_refuses_a_file_without_the_widest_network(tmp_path: Path, us3l: Command) -> None:
    path, model = tmp_path / "x.pt", s_nets(SMALL, (0.5, 0.25))
    write(path, model.theirs)
    code, _, said = us3l("import", str(path), "--backbone", NAME, "--channels", "1")
    assert code == 2 and "has the widths 0.5, 0.25, and not 1.0" in said
    write(path, s_nets(SMALL, (1.0, 0.25, 0.25)).theirs)
    code, _, said = us3l("import", str(path), "--backbone", NAME, "--channels", "1")
    assert code == 2 and "more than one of its widths may be one of 1.0, 0.25, 0.25" in said


@pytest.mark.parametrize("name", ["resnet", "pixels", "vit-tiny"])
def test_a_backbone_that_no_checkpoint_is_read_as_is_refused(tmp_path: Path, us3l: Command, name: str) -> None:
    code, _, said = us3l("import", str(tmp_path / "any.pth.tar"), "--backbone", name)
    assert code == 2 and f"there is no backbone '{name}' to import" in said
    assert "checkpoints of vision transformers are not read, those of small-resnet, cifar-resnet18," in said
    with pytest.raises(UserError, match=f"there is no backbone '{name}' to import"):
        import_backbone(tmp_path / "any.pth.tar", "0" * 64, Backbone(name, 3), None, 0.25)


def test_a_users_own_network_is_not_imported(tmp_path: Path, us3l: Command) -> None:
    code, _, said = us3l("import", str(tmp_path / "any.pth.tar"), "--backbone", "networks:mine")
    assert code == 2 and "there is no backbone 'networks:mine' to import" in said
