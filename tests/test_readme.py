"""What README shows works as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from project import ROOT

from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import save_network
from us3l.params.reading import load, read
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.table import TableJob

README = (ROOT / "README.md").read_text()


def snippet(language: str, holding: str) -> str:
    """The block of code that holds these words."""
    [found] = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in code]
    return found


def test_a_network_is_loaded_by_its_checkpoint_and_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = Backbone("small-resnet", 1).build(0.25).eval()
    views = {"views": {"normalize": {"mean": [0.5], "std": [0.25]}}}
    results = Path("results/digits")
    save_network(results / "networks/us3l/seed0-w025.safetensors", small, "small-resnet", 0.25, 1, {"params": views})
    (results / "checkpoints/us3l").mkdir(parents=True)
    (results / "checkpoints/us3l/seed0.safetensors").touch()
    names: dict[str, Any] = {"images": torch.rand(2, 1, 8, 8)}
    exec(snippet("python", "us3l.load"), names)
    assert torch.equal(names["logits"], small((names["images"] - 0.5) / 0.25))
    assert [*names["maps"]] == ["layer1", "layer2", "layer3"]
    torch.testing.assert_close(names["faster"](names["images"]), names["logits"], rtol=1e-4, atol=1e-4)


def test_ones_own_images_are_added_to_the_params_file_as_it_is(tmp_path: Path) -> None:
    content = read(ROOT / "params.yaml")
    for key, added in yaml.safe_load(snippet("yaml", "cats-view")).items():
        assert not content[key].keys() & added.keys(), "it would take the place of what is there"
        content[key] |= added
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    plan = Plan(load(tmp_path / "params.yaml"))
    run = plan.run("cats", "us3l")
    assert (run.data.name, run.widths, run.seeds) == ("cats", (1.0, 0.5, 0.25), (0,))
    assert TableJob(plan.table("cats", "main")).inputs
