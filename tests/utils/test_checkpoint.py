"""Weights on disk: what is written is read, and what is not a whole checkpoint of this run is refused in a sentence."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import files_limited_to
from safetensors.torch import save_file
from torch import Tensor

import us3l
from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import open_network, save_network
from us3l.pipeline.identity import differences
from us3l.pipeline.requirements import require_data, require_params
from us3l.utils.checkpoint import load, require_shapes, save
from us3l.utils.errors import UserError

ABOUT = {"params": {"run": {"epochs": 4, "range": [0.25, 1.0]}}, "data": "5eed", "seed": 0}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, generator=generator)
    return {"whole": x, "slice": x[:2, ::2], "transposed": x.T, "scalar": torch.tensor(3), "same": x}


def refusal(call: Any, *arguments: Any) -> str:
    """The sentence with which a call refuses."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


# --- round trips ----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "seed0.safetensors"
    seal = save(path, tensors(), ABOUT)
    loaded, about = load(path)
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].dtype == tensor.dtype
    assert about == {**ABOUT, "seal": seal}


def test_saving_does_not_store_more_than_the_part_of_a_tensor_that_is_meant(tmp_path: Path) -> None:
    save(tmp_path / "small", {"piece": torch.zeros(1_000_000)[:10]}, ABOUT)
    assert (tmp_path / "small").stat().st_size < 1000


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "seed0.safetensors"
    seal = save(path, tensors(), ABOUT)
    with files_limited_to(1000):
        assert str(path) in refusal(save, path, {"big": torch.zeros(10_000)}, ABOUT)
    assert load(path)[1] == {**ABOUT, "seal": seal}
    assert list(tmp_path.iterdir()) == [path]


# --- refusals -------------------------------------------------------------------------------------------------------


def test_an_absent_checkpoint_is_named(tmp_path: Path) -> None:
    message = "no such file; the stage before this one makes it, as `us3l plan` shows"
    assert refusal(load, tmp_path / "seed0.safetensors") == f"{tmp_path}/seed0.safetensors: {message}"


def test_a_folder_in_the_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(load, tmp_path)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        *((kept, "not a whole safetensors file; if a stage wrote it, ") for kept in (0, 4, 8, 100)),
        (-100, "damaged"),
        (-1, "damaged"),
    ],
)
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, kept: int, message: str) -> None:
    path = tmp_path / "seed0.safetensors"
    save(path, tensors(), ABOUT)
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(load, path).startswith(f"{path}: {message}")


@pytest.mark.parametrize("content", [b"a line of text\n", bytes(1000), b"\x80\x04" * 500, b"\xff" * 64])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "seed0.safetensors"
    path.write_bytes(content)
    assert f"{path}: not a whole safetensors file" in refusal(load, path)


def test_somebody_elses_safetensors_file_is_refused(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        save_file({"conv1.weight": torch.zeros(2, 3)}, tmp_path / "theirs", metadata)
        assert f"{tmp_path}/theirs: holds no us3l record" in refusal(load, tmp_path / "theirs")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_without_being_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(sprung)))
    torch.save({"trap": Trap(sprung)}, tmp_path / "checkpoint.pth.tar")
    for name in ("plain.pth", "checkpoint.pth.tar"):
        for read in (load, open_network):
            assert f"{tmp_path}/{name}: not a whole safetensors file" in refusal(read, tmp_path / name)
    assert not sprung.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert sprung.exists()


def test_another_architecture_is_refused_by_its_first_tensor_that_differs() -> None:
    here = {"a": torch.zeros(2), "b": torch.zeros(3, 4), "c": torch.zeros(5)}
    there = {"a": torch.zeros(2), "b": torch.zeros(3, 5), "c": torch.zeros(6)}
    sentence = refusal(require_shapes, Path("x.safetensors"), here, there, "resnet18", 0.5)
    assert sentence.startswith("x.safetensors: b is (3, 4) here and (3, 5) in a resnet18 of width 0.5")
    require_shapes(Path("x.safetensors"), here, {name: torch.ones_like(t) for name, t in here.items()}, "resnet18", 0.5)


@pytest.mark.parametrize(("lacking", "sentence"), [(0, "b is absent here and (3,)"), (1, "b is (3,) here and absent")])
def test_a_tensor_too_few_or_too_many_is_refused(lacking: int, sentence: str) -> None:
    both = [{"a": torch.zeros(2), "b": torch.zeros(3)} for _ in range(2)]
    del both[lacking]["b"]
    assert sentence in refusal(require_shapes, Path("x"), *both, "resnet18", 1.0)


@pytest.mark.parametrize(
    ("made", "asked", "key", "values"),
    [
        ({"run": {"epochs": 4}}, {"run": {"epochs": 5}}, "run.epochs", ("4", "5")),
        ({"run": {"range": [0.25, 1.0]}}, {"run": {"range": [0.5, 1.0]}}, "run.range", ("[0.25, 1.0]", "[0.5, 1.0]")),
        ({"run": {"penalty": None}}, {"run": {"penalty": {"x": 1}}}, "run.penalty", ("None", "{'x': 1}")),
        ({"run": {}}, {"run": {"new": None}}, "run.new", ("absent", "None")),
        ({"run": {"old": 1}}, {"run": {}}, "run.old", ("1", "absent")),
    ],
)
def test_other_params_are_refused_with_the_key_and_both_values(
    made: dict[str, Any], asked: dict[str, Any], key: str, values: tuple[str, str]
) -> None:
    sentence = refusal(require_params, Path("x.safetensors"), {"params": made}, asked, "train")
    assert f"x.safetensors: made with {key} = {values[0]}, but params.yaml says {values[1]}: train again" in sentence


def test_a_checkpoint_of_other_images_is_refused_and_one_of_the_same_run_is_not() -> None:
    message = "x: made from other images than those prepared now: train again"
    assert refusal(require_data, Path("x"), ABOUT, "0ther", "train") == message
    require_data(Path("x"), ABOUT, "5eed", "train")


def test_all_differences_of_two_params_are_told_in_the_order_of_their_keys() -> None:
    made = {"b": {"same": 1, "y": 2, "x": [1, 2]}, "a": 1, "c": {"deep": 1}}
    now = {"a": 1.5, "b": {"x": [1, 3], "y": 2, "same": 1}, "c": None}
    assert differences(made, now) == [("a", 1, 1.5), ("b.x", [1, 2], [1, 3]), ("c", {"deep": 1}, None)]
    assert differences(made, made) == []


# --- narrow networks ------------------------------------------------------------------------------------------------


def saved_network(path: Path, width: float = 0.37) -> tuple[torch.nn.Module, str]:
    """A network in evaluation mode, and the seal of the file."""
    torch.manual_seed(0)
    network = Backbone("small-resnet", 1).build(width)
    network(torch.randn(8, 1, 8, 8))
    seal = save_network(path, network, "small-resnet", width, 1, ABOUT)
    return network.eval(), seal


def test_a_narrow_network_comes_back_in_evaluation_mode_with_its_statistics(tmp_path: Path) -> None:
    (network, seal), x = saved_network(tmp_path / "w037"), torch.randn(4, 1, 8, 8)
    loaded, about = open_network(tmp_path / "w037")
    assert not loaded.training
    assert torch.equal(loaded(x), network(x))
    architecture = {"backbone": "small-resnet", "width": 0.37, "in_channels": 1}
    assert about == {**ABOUT, "architecture": architecture, "seal": seal}
    assert torch.equal(open_network(tmp_path / "w037")[0](x), network(x))


def test_a_narrow_network_loads_where_there_is_no_slimmable_one(tmp_path: Path) -> None:
    (network, _), x = saved_network(tmp_path / "w037"), torch.ones(1, 1, 8, 8)
    script = """
import json, sys, torch
from pathlib import Path
from us3l.models.saved_network import open_network
features = open_network(Path(sys.argv[1]))[0](torch.ones(1, 1, 8, 8))
print(json.dumps([sorted(name for name in sys.modules if name.startswith("us3l")), features.flatten().tolist()]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(us3l.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(tmp_path / "w037")]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout
    modules, features = json.loads(printed)
    assert not {"us3l.models.slimmable", "us3l.training.step", "us3l.losses.registry"} & set(modules)
    assert features == pytest.approx(network(x).flatten().tolist(), abs=1e-6)


def test_a_checkpoint_of_the_widest_weights_is_not_a_narrow_network(tmp_path: Path) -> None:
    save(tmp_path / "seed0", tensors(), ABOUT)
    assert f"{tmp_path}/seed0: not a narrow network" in refusal(open_network, tmp_path / "seed0")


@pytest.mark.parametrize(
    "changes",
    [{"backbone": "resnet19"}, {"backbone": ["x"]}, {"width": "half"}, {"in_channels": -1}, {"in_channels": None}, {}],
)
def test_a_narrow_network_of_no_known_architecture_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    architecture = {"backbone": "small-resnet", "width": 0.5, "in_channels": 1} | changes if changes else "odd"
    save(tmp_path / "x", Backbone("small-resnet", 1).build(0.5).state_dict(), ABOUT | {"architecture": architecture})
    message = refusal(open_network, tmp_path / "x")
    assert message.startswith(f"{tmp_path}/x: there is no such architecture here: {architecture!r}; take the version")


def test_a_narrow_network_whose_tensors_do_not_fit_its_record_is_refused(tmp_path: Path) -> None:
    save_network(tmp_path / "x", Backbone("small-resnet", 1).build(0.5), "small-resnet", 0.25, 1, ABOUT)
    assert "bn1.bias is (16,) here and (8,) in a small-resnet of width 0.25" in refusal(open_network, tmp_path / "x")
