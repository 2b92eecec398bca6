"""`backbone: module:function`: a user's own network, from its source in the project's folder to a table."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from project import RUN, Project, params
from safetensors.torch import load_file

from us3l.models.backbones.backbone import Backbone
from us3l.models.backbones.custom import require_features
from us3l.models.saved_network import open_network
from us3l.models.slimmable import Slimmable
from us3l.params.reading import load
from us3l.pipeline.provenance import record
from us3l.utils.errors import UserError
from us3l.utils.records import read_record
from us3l.utils.source import code_of_network

STAGES = ("pretrain", "calibrate", "linear")
EVALUATION = "results/tiny/linear/us3l/seed0-w025.json"
CHECKPOINT = "results/tiny/checkpoints/us3l/seed0.safetensors"
NETWORK = "results/tiny/networks/us3l/seed0-w025.safetensors"

TINY = """
from torch import nn

from networks.parts import block


def tiny(width):
    first, second = round(16 * width), round(32 * width)
    return nn.Sequential(block(1, first), block(first, second), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
PARTS = """
from torch import nn


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())
"""
RESNET = """
from us3l.models.backbones.resnet import BasicBlock, ResNet


def copy(width):
    return ResNet(BasicBlock, (1, 1, 1), (32, 64, 128), "cifar", width, 1)


def without_num_features(width):
    network = copy(width)
    del network.num_features
    return network
"""


def write(project: Project, **modules: str) -> Project:
    folder = project.folder / "networks"
    folder.mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return project


def tiny_params() -> dict[str, Any]:
    content = params(backbone="networks.mine:tiny", epochs=1, batch={"size": 128, "shards": 2})
    content["datasets"]["digits"]["source"]["test_fraction"] = 0.25  # enough images to learn from
    return content


def with_tiny(folder: Path) -> Project:
    return write(Project(folder, tiny_params()), mine=TINY, parts=PARTS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = with_tiny(tmp_path_factory.mktemp("built"))
    made.must("us3l", "prepare", "digits")
    for stage in STAGES:
        made.must("us3l", stage, "tiny", "us3l", "0")
    made.must("us3l", "table", "tiny", "main")
    return made


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """Copy the project, so that tests may change it."""
    shutil.copytree(built.folder, tmp_path / "copy")
    return with_tiny(tmp_path / "copy")


def test_every_width_is_calibrated_and_learns_digits(built: Project) -> None:
    evaluation = json.loads((built.folder / EVALUATION).read_text())
    assert evaluation["top1"] > 25 and evaluation["n"] == 450  # chance is 10
    # 3x3 convolutions of 1 to 4 and 4 to 8 channels with biases, two BatchNorms.
    assert evaluation["parameters"] == (9 * 4 + 4) + 2 * 4 + (9 * 4 * 8 + 8) + 2 * 8
    tensors = load_file(built.folder / NETWORK)
    assert tensors["0.1.num_batches_tracked"] == 3 * (1347 // 128)
    torch.testing.assert_close(tensors["0.0.weight"], load_file(built.folder / CHECKPOINT)["backbone.0.0.weight"][:4])


def test_a_network_without_batch_norms_is_not_calibrated(tmp_path: Path) -> None:
    made = write(with_tiny(tmp_path), parts=PARTS.replace("nn.BatchNorm2d(outputs), ", ""))
    made.must("us3l", "prepare", "digits")
    for stage in STAGES:
        made.must("us3l", stage, "tiny", "us3l", "0")
    trained, calibrated = load_file(made.folder / CHECKPOINT), load_file(made.folder / NETWORK)
    assert set(calibrated) == {"0.0.weight", "0.0.bias", "1.0.weight", "1.0.bias"}
    torch.testing.assert_close(calibrated["1.0.weight"], trained["backbone.1.0.weight"][:8, :4], rtol=0, atol=0)


@pytest.mark.parametrize("function", ["copy", "without_num_features"])
def test_a_copy_of_a_network_of_ours_trains_as_that_does_bit_by_bit(tmp_path: Path, function: str) -> None:
    # Of such shards, the views go through our network, too, one after the other.
    changes = {"sampling": {"schedule": "constant"}, "epochs": 1, "batch": {"size": 256, "shards": 2}}
    content = params(**changes)
    content["datasets"]["digits"]["source"]["test_fraction"] = 0.8
    content["studies"]["tiny"]["runs"]["own"] = RUN | changes | {"backbone": f"networks.resnet:{function}"}
    made = write(Project(tmp_path, content), resnet=RESNET)
    made.must("us3l", "prepare", "digits")
    for run in ("us3l", "own"):
        made.must("us3l", "pretrain", "tiny", run, "0")
    ours, own = (read_record(tmp_path / f"results/tiny/pretrain/{run}/seed0.json") for run in ("us3l", "own"))
    assert [e["loss"] for e in own["epochs"]] == [e["loss"] for e in ours["epochs"]]
    ours, own = (load_file(tmp_path / f"results/tiny/checkpoints/{run}/seed0.safetensors") for run in ("us3l", "own"))
    assert ours.keys() == own.keys()
    assert all(torch.equal(ours[name], own[name]) for name in ours)


def test_verify_derives_everything_again_in_a_folder_of_its_own(project: Project) -> None:
    output = project.must("us3l", "verify", "--level", "3")
    assert output.count("holds") == 4
    assert (project.folder / "networks" / "mine.py").read_text() == TINY


@pytest.mark.parametrize("module", ["mine", "parts"])
def test_an_edit_of_the_source_is_named_and_makes_all_that_uses_it_run_again(project: Project, module: str) -> None:
    source = project.folder / "networks" / f"{module}.py"
    source.write_text(source.read_text() + "# A comment\n")
    assert "nothing that it rests on has changed" in project.must("us3l", "why", EVALUATION)
    source.write_text(source.read_text() + "VALUE = 1\n")
    output = project.must("us3l", "why", EVALUATION)
    made = read_record(project.folder / EVALUATION)["code"][f"networks.{module}"]
    assert f"-code.networks.{module}: {made}\n+code.networks.{module}: " in output
    assert "would run again: pretrain tiny us3l 0, calibrate tiny us3l 0, linear tiny us3l 0, table" in output
    code, said = project.run("us3l", "calibrate", "tiny", "us3l", "0")
    assert code == 2 and f"made with code.networks.{module} = {made}, but the module is " in said


def test_an_edit_of_the_source_that_changes_no_number_is_requalified(project: Project) -> None:
    source = project.folder / "networks" / "mine.py"
    source.write_text(source.read_text().replace("first", "inner"))
    output = project.must("us3l", "requalify")
    assert output.splitlines() == [f"us3l {stage} tiny us3l 0: equal, bitwise" for stage in STAGES]
    assert project.must("us3l", "calibrate", "tiny", "us3l", "0").endswith("up to date; --force makes it again\n")
    assert "made with" not in project.must("us3l", "calibrate", "tiny", "us3l", "0", "--force")


def test_an_edit_that_is_not_committed_is_recorded_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_tiny(tmp_path)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for command in ("init -q", "add networks params.yaml", "commit -qm one"):
        subprocess.run([*git, *command.split()], check=True)
    identity = {"code": code_of_network("networks.mine:tiny")}
    assert not record(identity, None, 0.0)["git"]["dirty"]
    write(made, parts=PARTS + "VALUE = 1\n")
    assert record(identity, None, 0.0)["git"]["dirty"]


def test_a_frozen_teacher_may_be_a_users_own_network(project: Project) -> None:
    content = tiny_params()
    method = RUN["method"] | {"momentum": None, "teacher": "us3l"}
    student = {"method": method, "epochs": 1, "backbone": "small-resnet"}
    content["studies"]["tiny"]["runs"]["student"] = RUN | student
    project.write(content)
    project.must("us3l", "pretrain", "tiny", "student", "0")
    record = read_record(project.folder / "results/tiny/pretrain/student/seed0.json")
    assert record["params"]["run"]["method"]["teacher"] == "networks.mine:tiny"


@pytest.mark.parametrize(
    "protocol",
    [{"kind": "knn"}, {"kind": "finetune", "epochs": 4, "batch_size": 64, "optimizer": {"lr": 0.1}}],
)
def test_other_protocols_evaluate_it(project: Project, protocol: dict[str, Any]) -> None:
    content = tiny_params()
    content["protocols"]["quick"] = protocol
    project.write(content)
    project.must("us3l", protocol["kind"], "tiny", "us3l", "0")
    assert read_record(project.folder / EVALUATION.replace("linear", protocol["kind"]))["top1"] > 25


def test_snakemake_writes_the_plan_again_after_an_edit(project: Project) -> None:
    project.with_workflow()
    plan = ("snakemake", "--cores", "1", "--quiet", "all", "--allowed-rules", "plan", "--", "results/plan.json")
    project.must(*plan)
    before = (project.folder / "results/plan.json").read_text()
    write(project, parts=PARTS.replace("3, 2, 1", "5, 2, 2"))
    project.must(*plan)
    after = (project.folder / "results/plan.json").read_text()
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == len(STAGES) and all('"code"' in a for a, _ in changed)


def test_a_network_file_whose_source_is_absent_is_refused(
    built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"backbone networks.mine:tiny: there is no module networks.mine, since .* has no"
    ):
        open_network(built.folder / NETWORK)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that writes a module with a unique name into the current directory and returns the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])  # as the console script finds it
    name = f"own_{abs(hash(request.node.name))}"

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{text}")
        return name

    return write


def test_a_buffer_has_the_value_that_the_builder_gave_it(module: Callable[[str], str]) -> None:
    name = module("""
class Shift(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(64, round(8 * width))
        self.register_buffer("shift", torch.arange(64) / 64)

    def forward(self, x):
        return self.layer(x.flatten(1) + self.shift)
""")
    network = Slimmable(lambda width: Backbone(f"{name}:Shift", 1, (8, 8)).build(width))
    assert network.meta_module(0.5).num_features == 4
    weights = {"layer.weight": torch.ones(4, 64), "layer.bias": torch.zeros(4)}
    features = network(weights, 0.5, torch.zeros(2, 1, 8, 8))
    torch.testing.assert_close(features, torch.full((2, 4), 31.5))


LINEAR = "def f(width): return nn.Sequential(nn.Flatten(), nn.Linear(64, "
WRONG = {
    "def f(width)\n    pass": "line 3",
    "raise SystemExit(3)": "cannot be imported: SystemExit in .*, line 3: 3",
    "raise OSError('no\\nway')": "cannot be imported: OSError in .*, line 3: no way",
    "def g(width): pass": "has no function 'f'; write one, def f",
    "f = 3": "has no function 'f'",
    "def f(width): raise ValueError('odd')": r"f\(1.0\) cannot be built: ValueError in .*, line 3: odd",
    "def f(width): raise SystemExit(3)": r"f\(1.0\) cannot be built: SystemExit in .*, line 3: 3",
    "def f(width): return nn.Linear(8, torch.ones(8).sum().int())": r"built without storage, .* device meta: Runtime",
    "def f(): pass": r"f\(1.0\) cannot be built: TypeError",
    "def f(width): return 3": r"f\(1.0\) returns int; it must return a torch.nn.Module",
    f"{LINEAR}round(8 / width)))": r"f\(0.3\): 1.weight is \(27, 64\), which does not fit into the \(8, 64\)",
    f"{LINEAR}8, bias=width < 1))": r"f\(0.3\) has a parameter 1.bias, which width 1.0 lacks",
    f"{LINEAR}8, bias=width == 1))": r"f\(0.3\) lacks the parameter 1.bias of width 1.0",
    "def f(width): return nn.LazyLinear(8)": "weight has no shape before it has seen an image",
    "def f(width): return nn.Conv2d(1, 8, 1)": r"makes \(2, 8, 8, 8\) of 2 images; its output must be",
    "def f(width): return nn.Conv2d(3, 8, 1)": "does not take an image of 1 x 8 x 8, channels first: Runtime",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items())
def test_what_is_wrong_with_a_builder_is_said_in_one_sentence(
    module: Callable[[str], str], text: str, said: str
) -> None:
    name = module(text)
    with pytest.raises(UserError, match=said) as error:
        code_of_network(f"{name}:f")
        Backbone(f"{name}:f", 1, (8, 8)).build(1.0)
        Backbone(f"{name}:f", 1, (8, 8)).build(0.3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "us3l: backbone networks.mine:tiny: there is no module networks.mine, since "),
        (
            TINY.replace("block(1,", "block(3,"),
            "us3l: networks.mine:tiny at width 1.0 does not take an image of 1 x 8 x 8",
        ),
        (TINY.replace("def tiny", "def other"), "mine.py has no function 'tiny'"),
        (
            TINY.replace("round(32 * width)", "round(8 / width)"),
            "us3l: networks.mine:tiny(0.25): 1.0.weight is (32, 4, 3, 3)",
        ),
        (
            TINY.replace("def tiny(width):", "def tiny(width):\n    assert (16 * width).is_integer()"),
            "line 8: ; every width of studies.tiny.runs.us3l.sampling, 0.25 to 1.0, must work",
        ),
        (
            TINY.replace("return nn", "network = nn").rstrip() + "\n    network.num_features = 7\n    return network\n",
            "networks.mine:tiny at width 1.0 makes 32 features, but its num_features is 7: correct the attribute",
        ),
    ],
)
def test_a_mistake_ends_the_training_with_exit_code_2_and_no_traceback(
    project: Project, source: str | None, said: str
) -> None:
    (project.folder / "networks" / "mine.py").unlink()
    if source:
        write(project, mine=source)
    code, output = project.run("us3l", "pretrain", "tiny", "us3l", "0")
    *beginning, sentence = output.splitlines()
    assert code == 2 and said in f"{sentence}\n", output
    assert not any(line.startswith(("us3l: ", "Traceback")) for line in beginning), output


def test_a_sentence_of_the_network_itself_is_said_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^images of 20x20: a vision transformer takes"):
        require_features("vit-tiny", Backbone("vit-tiny", 1).build(0.25), torch.zeros(1, 1, 20, 20))


def test_a_module_that_python_finds_elsewhere_is_refused(module: Callable[[str], str], tmp_path: Path) -> None:
    Path("json.py").write_text("def f(width): pass\n")
    with pytest.raises(UserError, match=r"Python has another json, .*; rename "):
        Backbone("json:f", 1).build(1.0)
    Path("json.py").unlink()


@pytest.mark.parametrize("name", ["networks/mine.py:tiny", "mine:", ":tiny", "a:b:c", "mine..x:f"])
def test_a_name_that_is_no_module_and_function_is_refused(tmp_path: Path, name: str) -> None:
    Project(tmp_path, params(backbone=name))
    said = "params.yaml: studies.tiny.runs.us3l.backbone: must be module:function, a module of this folder and"
    with pytest.raises(UserError, match=said):
        load(tmp_path / "params.yaml")
