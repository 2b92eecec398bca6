"""`us3l export`: folders that run without us3l, and what is said where one would not."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import shipped
import torch
import torchvision
from image_files import write
from project import Project
from safetensors.torch import load_file
from torch import nn

import us3l
from benchmarks.exports import network
from us3l.deployment import export as exporting
from us3l.deployment import formats
from us3l.deployment.config import Config
from us3l.deployment.export import export
from us3l.deployment.network import Network
from us3l.evaluation.predictions import decode, encode
from us3l.params.reading import load
from us3l.pipeline.deploy import DeployedRun
from us3l.pipeline.plan.plan import Plan
from us3l.utils import extras
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

Command = Callable[..., tuple[int, str, str]]
NETWORK = Path("results/tiny/networks/us3l/seed0-w025.safetensors")


@pytest.mark.usefixtures("project", "new_interpreter")
def test_an_exported_folder_runs_without_us3l_and_has_the_tables_accuracy(us3l: Command) -> None:
    code, output, errors = us3l("export", "tiny", "us3l", "0", "--width", "0.25", "--head", "--out", "out")
    assert (code, errors) == (0, "")
    assert "out/w025: model.safetensors" in output and "compared on 256 images without us3l" in output
    assert output.count("bitwise") == 2, "model.py with safetensors, and pt2"
    folder = Path("out/w025")
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "config.json", "model.py", "model.safetensors", "model.onnx", "model.pt2")
    }
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    record = read_record(Path("results/tiny/linear/us3l/seed0-w025.json"))
    assert config["accuracy"]["top1"] == record["top1"]
    assert config["provenance"]["network"] == record["network"]
    assert config["provenance"]["verify"] == 'us3l verify "tiny/main:1:0.25x" --level 3'
    assert config["files"]["model.onnx"]["largest_relative_difference"] < 1e-5
    assert f"{record['top1']:.1f}% top-1" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("project")
def test_a_classifier_that_does_not_give_the_recorded_classes_is_not_exported(us3l: Command) -> None:
    path = Path("results/tiny/linear/us3l/seed0-w025.json")
    record = read_record(path)
    classes = decode(record["predictions"], record["n"]).copy()
    classes[:: len(classes) - 1] = (classes[:: len(classes) - 1] + 1) % 10
    forged = {key: value for key, value in record.items() if key != "seal"}
    write_record(path, {**forged, "predictions": encode(classes)})
    code, _, errors = us3l("export", "tiny", "us3l", "0", "--width", "0.25", "--head", "--formats", "")
    assert code == 2
    assert errors == (
        f"us3l: tiny us3l at width 0.25: 2 of 256 test images get another class than {path} says; evaluate again\n"
    )
    assert not Path("exports").exists()


@pytest.mark.usefixtures("project")
@torch.no_grad()
def test_an_exported_folder_loads_again(us3l: Command) -> None:
    assert us3l("export", "tiny", "us3l", "0", "--formats", "", "--head")[0] == 0
    images = torch.rand(3, 1, 8, 8)
    for label, width in (("w100", 1.0), ("w025", 0.25)):
        again = load_exported(f"exports/tiny/us3l/seed0/{label}")
        assert again.config.width == width
        assert torch.equal(
            again(images), load_exported(f"results/tiny/networks/us3l/seed0-{label}.safetensors")(images)
        )
    weights = Path("exports/tiny/us3l/seed0/w025/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"model\.safetensors: not readable .*; export again"):
        load_exported(weights.parent)


def load_exported(path: str | Path) -> Network:
    return us3l.load(path)


@pytest.mark.usefixtures("project")
def test_the_file_of_a_network_is_exported_too(us3l: Command) -> None:
    code, output, _ = us3l("export", str(NETWORK), "--formats", "", "--out", "out")
    assert code == 0 and "compared on 16 images" in output
    assert us3l("export", str(NETWORK), "--formats", "", "--out", "out")[0] == 0, "an earlier export is replaced"


@torch.no_grad()
def test_any_trained_width_has_the_bits_that_the_study_would_have_made(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and path.suffix != ".sqlite"}
    plan = Plan(load(Path("params.yaml")))
    on_the_spot = DeployedRun(plan, plan.run("tiny", "us3l"), 0, torch.device("cpu")).network(0.6)
    assert {path: path.read_bytes() for path in before} == before
    Project(project, shipped.content((1.0, 0.6)))
    shipped.run(monkeypatch, "calibrate", "tiny", "us3l", "0")
    listed = us3l.load("results/tiny/networks/us3l/seed0-w060.safetensors")
    ours, theirs = on_the_spot.backbone.state_dict(), listed.backbone.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("cifar-resnet18", 16),
        ("resnet50", 32),
        ("cifar-mobilenetv2", 16),
        ("mobilenetv1", 32),
        ("vit-tiny", 32),
        ("pixels", 8),
    ],
)
def test_every_architecture_is_built_by_pytorch_alone(name: str, side: int, tmp_path: Path) -> None:
    made = network(name, 1.0 if name == "pixels" else 0.3, side, classes=7)
    [compared] = export(made, tmp_path / "out", [], torch.rand(4, 3, side, side))
    assert compared.problem == "" and compared.difference == 0
    source = (tmp_path / "out/model.py").read_text(encoding="utf-8")
    assert "import us3l" not in source and "from us3l" not in source


@pytest.mark.parametrize(("library", "build"), [("torchvision.models", "get_model"), ("timm", "create_model")])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_a_width_of_one_loads_into_the_resnets_of_others(library: str, build: str, name: str, tmp_path: Path) -> None:
    other = getattr(pytest.importorskip(library), build)(name, num_classes=5).eval()
    made, images = network(name, 1.0, 32, classes=5), torch.rand(2, 3, 32, 32)
    formats.write_safetensors(made, images[0], tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(other((images - 0.4) / 0.3), made(images), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shapes_that_fit_do_not_make_the_same_network() -> None:
    """Torchvision's MobileNetV2 of width 0.25 takes our tensors one by one, and has a shortcut more."""
    ours, images = network("mobilenetv2", 0.25, 64).backbone, torch.rand(2, 3, 64, 64)
    theirs = torchvision.models.mobilenet_v2(width_mult=0.25).eval()
    mine = list(ours.state_dict().values())
    names = [name for name in theirs.state_dict() if not name.startswith("classifier")]
    assert [each.shape for each in mine] == [theirs.state_dict()[name].shape for name in names]
    theirs.load_state_dict(dict(zip(names, mine, strict=True)), strict=False)
    theirs.classifier = nn.Identity()
    assert not torch.allclose(theirs(images), ours(images), rtol=0.01)


def test_a_custom_network_takes_its_modules_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shipnets").mkdir()
    Path("shipnets/parts.py").write_text("from torch import nn\n\ndef layer(n):\n    return nn.Conv2d(3, n, 3)\n")
    Path("shipnets/mine.py").write_text(
        "from torch import nn\nfrom shipnets.parts import layer\n\n\ndef tiny(width):\n"
        "    return nn.Sequential(layer(round(8 * width)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    [compared] = export(network("shipnets.mine:tiny", 0.5, 8), tmp_path / "out", [], torch.rand(4, 3, 8, 8))
    assert compared.difference == 0
    assert Path("out/shipnets/parts.py").is_file()


@pytest.mark.usefixtures("new_interpreter")
def test_a_custom_network_that_needs_us3l_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("needs_us3l.py").write_text(
        "from us3l.models.backbones.backbone import Backbone\n\n\n"
        "def tiny(width):\n    return Backbone('small-resnet', 3).build(width)\n"
    )
    with pytest.raises(UserError, match=r"model\.py does not build this network: ModuleNotFoundError: .*us3l"):
        export(network("needs_us3l:tiny", 0.5, 8), tmp_path / "out", [], torch.rand(4, 3, 8, 8))
    assert [path.name for path in tmp_path.glob("*out*")] == []


def test_a_model_file_of_another_network_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = exporting.model_file

    def without_normalization(config: Config, features: int) -> str:
        return true(config, features).replace("(images - self.mean) / self.std", "images")

    monkeypatch.setattr(exporting, "model_file", without_normalization)
    with pytest.raises(UserError, match=r"width 0\.5: model\.py does not build this network: outputs differ by "):
        export(network("small-resnet", 0.5, 8), tmp_path / "out", [], torch.rand(4, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("project")
def test_a_format_that_does_not_hold_is_removed_and_said(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_another(made: Network, example: torch.Tensor, path: Path) -> None:
        formats.write_pt2(network("small-resnet", 0.25, 8, channels=1), example, path)

    monkeypatch.setitem(formats.FORMATS, "pt2", write_another)
    code, output, _ = us3l("export", "tiny", "us3l", "0", "--width", "0.25", "--formats", "pt2", "--out", "out")
    assert code == 1
    assert "model.pt2 removed: outputs differ by" in output
    assert not Path("out/w025/model.pt2").exists() and Path("out/w025/model.safetensors").exists()
    assert "model.pt2" not in Path("out/w025/config.json").read_text(encoding="utf-8")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("tiny", "us3l", "0", "--width", "1.2"),
            "tiny us3l: trained at the widths 0.25 to 1.0, not at 1.2; ",
        ),
        (
            ("tiny", "cut", "0"),
            "tiny cut: a pruned network keeps its shape, with zeros in it",
        ),
        (("tiny", "missing", "0"), "networks/missing/seed0-w100.safetensors: no such file; the stage before this one"),
        (
            ("tiny", "us3l", "0", "--width", "0.6", "--head"),
            "no classifier is trained at width 0.6 by the protocol qu",
        ),
        (("votes", "near", "0", "--head"), "votes near: no classifier is trained at width 1 by the protocol near"),
        (("photo.jpg",), "photo.jpg: not a whole safetensors file; if a stage wrote it, take it back"),
        (("tiny", "us3l", "7"), "the study tiny has the seeds [0], and no 7"),
        (("tiny", "us3l"), "tiny us3l: give STUDY RUN SEED, or without --width the file of one network"),
        (
            ("tiny", "us3l", "0", "--formats", "tf"),
            "--formats: there is no format 'tf'; there is safetensors, ",
        ),
        (("tiny", "us3l", "0", "--formats", "", "--out", "results"), ""),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(us3l: Command, arguments: tuple[str, ...], said: str) -> None:
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff" * 1000)
    code, _, errors = us3l("export", *arguments)
    if said:
        assert code == 2 and said in errors and errors.count("\n") == 1
        assert not Path("exports").exists()
    else:
        assert code == 0, "a folder in another one"


@pytest.mark.usefixtures("project")
def test_a_folder_that_holds_something_else_stays_as_it_is(us3l: Command) -> None:
    Path("out/w025").mkdir(parents=True)
    Path("out/w025/thesis.tex").touch()
    code, _, errors = us3l("export", str(NETWORK), "--formats", "", "--out", "out")
    assert code == 2
    assert errors == "us3l: out/w025: holds something else than an export; give --out another folder, or remove it\n"
    assert [path.name for path in Path("out").rglob("*")] == ["w025", "thesis.tex"]


@pytest.mark.usefixtures("project")
def test_a_format_whose_package_is_missing_says_which(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    code, _, errors = us3l("export", str(NETWORK), "--formats", "onnx", "--out", "out")
    assert code == 2
    assert errors == "us3l: the format onnx needs onnxruntime: pip install 'us3l[export]'\n"
    assert not Path("out").exists() or not any(Path("out").iterdir())


PILLOW_AND_ONNXRUNTIME = """
import json, sys
for name in ("torch", "torchvision", "us3l", "scipy"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
import onnxruntime
from PIL import Image

folder, images = Path(sys.argv[1]), Path(sys.argv[2])
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
size, right, count = config["prepared_size"], 0, 0
for path in sorted(images.rglob("*.jpg")):
    picture = Image.open(path).convert("RGB")
    scale = size / min(picture.size)
    picture = picture.resize([int(side * scale) for side in picture.size], Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in picture.size)
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32) / 255
    [logits] = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
    right += config["classes"][logits.argmax()] == path.parent.name
    count += 1
print(right, count)
"""


def test_onnxruntime_and_pillow_alone_classify_a_folders_images_as_the_record_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, us3l: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 8), ("test", 5)):
        for number, name in enumerate(("lion", "cat", "lynx")):
            for image in range(count):
                write(Path("images", split, name, f"{image}.jpg"), 100 * number + image % 3, 20 + image, 30)
    made = shipped.content((0.5,))
    made["datasets"]["digits"] = {
        "source": {"kind": "folder", "train": "images/train", "test": "images/test", "image_size": 16},
        "views": {"normalize": {"mean": [0.5] * 3, "std": [0.3] * 3}, "pretrain": [{}, {}]},
    }
    made["protocols"]["quick"] |= {"batch_size": 8, "calibration": {"batch_size": 8, "momentum": 0.9}}
    shipped.make(tmp_path, made)
    assert us3l("export", "tiny", "us3l", "0", "--head", "--formats", "onnx", "--out", "out")[0] == 0
    done = subprocess.run(
        [sys.executable, "-c", PILLOW_AND_ONNXRUNTIME, "out/w050", "images/test"], capture_output=True, text=True
    )
    record: dict[str, Any] = read_record(Path("results/tiny/linear/us3l/seed0-w050.json"))
    assert done.stdout == f"{round(record['top1'] * record['n'] / 100)} {record['n']}\n", done.stderr
    assert record["n"] == 15 and record["top1"] > 50
