"""Packages that only some commands need: what the sentence says where they are missing, and that no other is needed."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from project import ROOT, params

from us3l.utils.extras import MODULES as EXTRA_MODULES
from us3l.utils.extras import PACKAGES
from us3l.utils.source import closure

Command = Callable[..., tuple[int, str, str]]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"pillow": "PIL", "pyyaml": "yaml"}  # of packages that are imported by another name


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("extra", PACKAGES)
def test_the_packages_of_an_extra_are_those_of_pyproject(extra: str) -> None:
    assert set(PACKAGES[extra]) == names(PROJECT["optional-dependencies"][extra]) - {"torch"}


@pytest.mark.parametrize(
    ("command", "module", "package", "extra"),
    [
        ("prepare digits", "sklearn", "scikit-learn", "train"),
        ("pretrain tiny us3l 0", "sklearn", "scikit-learn", "train"),
        ("calibrate tiny us3l 0", "torchvision", "torchvision", "train"),
        ("linear tiny us3l 0", "torchvision", "torchvision", "train"),
        ("features-linear tiny us3l 0", "torchvision", "torchvision", "train"),
        ("table tiny main", "pandas", "pandas", "train"),
        ("verify", "scipy", "scipy", "train"),
        ("requalify", "pooch", "pooch", "train"),
        ("make plan", "snakemake", "snakemake", "workflow"),
        ("commit", "dvc", "dvc", "workflow"),
        ("fetch", "dvc", "dvc", "workflow"),
        ("publish", "dvc", "dvc", "workflow"),
    ],
)
def test_a_command_without_its_packages_names_the_extra(
    us3l: Command, monkeypatch: pytest.MonkeyPatch, command: str, module: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = command.split()[0]
    sentence = f"us3l: us3l {name} needs {package}: pip install 'us3l[{extra}]'\n"
    assert us3l(*command.split()) == (2, "", sentence)
    assert us3l(name, "--help")[0] == 0


def test_all_missing_packages_are_named(us3l: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("pandas", "scipy", "torchvision"):
        monkeypatch.setitem(sys.modules, module, None)
    error = us3l("init", "new", "--images", "photos")[2]
    assert error == "us3l: us3l init --images needs pandas, scipy and torchvision: pip install 'us3l[train]'\n"
    assert us3l("init", "new")[0] == 0, "a project of digits needs no images read"


@pytest.mark.parametrize("module", ["models.saved_network", "models.published.summary"])
def test_networks_need_the_base_packages_alone(module: str) -> None:
    base = {MODULES.get(name, name) for name in names(PROJECT["dependencies"])}
    imported = set()
    for name in closure(f"us3l.{module}"):
        place = ROOT / name.replace(".", "/")
        source = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    assert {"torch", "safetensors"} <= imported
    assert imported - sys.stdlib_module_names - {"us3l"} <= base


def test_the_plan_needs_the_base_packages_alone(us3l: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params()))
    for package in (package for packages in PACKAGES.values() for package in packages):
        monkeypatch.setitem(sys.modules, EXTRA_MODULES.get(package, package), None)
    for arguments in (["plan"], ["plan", "--cost"], ["why", "results/tiny/tables/main.md"], ["dvc"]):
        assert us3l(*arguments)[0] == 0


def test_the_version_is_that_of_the_package(us3l: Command) -> None:
    assert us3l("--version") == (0, f"us3l {PROJECT['version']}\n", "")
