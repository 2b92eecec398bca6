"""The schema from which editors complete, and the page that explains the keys: current, and true of every file."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from project import ROOT, params

from us3l.params.descriptions import field_descriptions
from us3l.params.documentation import params_documentation
from us3l.params.json_schema import params_schema
from us3l.params.schema import StrictModel
from us3l.params.yaml_file import read_yaml

SCHEMA = params_schema()
FILES = [ROOT / "params.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]
RUN = ("studies", "tiny", "runs", "us3l")


def errors(content: Any) -> list[str]:
    """What an editor would underline: JSON knows text as keys only."""
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(content)))]


def test_the_committed_schema_and_page_are_those_that_the_command_writes(
    us3l: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    assert us3l("schema")[0] == 0
    for name in ("params.schema.json", "docs/params.md"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run us3l schema"


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_params_file_has_the_schema_and_names_it(file: Path) -> None:
    assert errors(read_yaml(file)) == []
    first = file.read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / named).resolve() == ROOT / "params.schema.json"


def changed(value: Any, *keys: str) -> Any:
    made = deepcopy(params())
    place = made
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return made


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (3, ("bild",)),
        (3, (*RUN, "epohcs")),
        ("simclr2", (*RUN, "method", "name")),
        (0, (*RUN, "epochs")),
        (1.5, (*RUN, "sampling")),
        ({"widths": [0.1]}, (*RUN, "sampling")),
        ("resnet19", (*RUN, "backbone")),
        ([1.5], (*RUN, "widths_alone")),
        ("Quick", ("studies", "tiny", "protocol")),
        ("ftp://x", ("datasets", "digits", "source", "url")),
    ],
)
def test_what_is_misspelt_or_out_of_bounds_is_underlined(value: Any, keys: tuple[str, ...]) -> None:
    assert errors(params()) == []
    assert errors(changed(value, *keys))


@pytest.mark.parametrize(
    "run",
    [
        {"like": "us3l", "epochs": 9},
        {"like": "other/us3l", "widths_alone": [1.0, 0.5]},
        {"like": "us3l", "method": "infonce", "sampling": 0.5},
        {"like": "us3l", "method": {"like": "infonce", "temperature": 0.2}, "sampling": None, "widths_alone": None},
        {"kind": "reuse", "weights_from": "us3l", "dataset": "digits"},
        {"like": "near", "weights_from": "other"},
    ],
)
def test_the_words_of_the_language_are_known(run: Any) -> None:
    assert errors(changed(run, *RUN)) == []


def models(model: type[StrictModel]) -> set[type[StrictModel]]:
    return {each for direct in model.__subclasses__() for each in (direct, *models(direct))}


def test_every_field_is_described_and_on_the_page() -> None:
    page = params_documentation()
    described = {
        model: field_descriptions(model) for model in models(StrictModel) if model.__module__.startswith("us3l.params")
    }
    fields = [(model, name) for model in described for name in model.model_fields]
    assert len(fields) >= 182
    for model, name in fields:
        description = described[model].get(name)
        assert description, f"{model.__name__}.{name}"
        assert f"| `{name}` |" in page and " ".join(description.split()) in page, f"{model.__name__}.{name}"
