"""The language of params files: what an abbreviation stands for, and the sentence where it stands for nothing."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import RUN, params

from us3l.params.params import Params
from us3l.params.reading import load, read
from us3l.params.runs import PretrainRun
from us3l.params.sampling import Sampling
from us3l.utils.errors import UserError

INFONCE = RUN["method"]
TINY = "studies.tiny.runs"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(content: Any, **others: Any) -> Params:
    """The params of a file with this content, beside files of other names."""
    for name, other in others.items():
        path = Path(f"{name}.yaml")
        path.write_text(yaml.safe_dump(other, sort_keys=False))
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load(Path("params.yaml"))


def with_runs(**runs: Any) -> dict[str, Any]:
    made = params()
    made["studies"]["tiny"]["runs"] |= runs
    return made


def run(made: Params, name: str, study: str = "tiny") -> PretrainRun:
    found = made.studies[study].runs[name]
    assert isinstance(found, PretrainRun)
    return found


def refusal(content: Any, **others: Any) -> str:
    with pytest.raises(UserError) as error:
        written(content, **others)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- like -----------------------------------------------------------------------------------------------------------


def test_a_run_is_like_another_but_for_its_own_keys_which_replace_the_others_whole() -> None:
    made = written(with_runs(longer={"like": "us3l", "epochs": 9, "optimizer": {"lr": 0.1, "momentum": 0.5}}))
    expected = RUN | {"epochs": 9, "optimizer": {"lr": 0.1, "momentum": 0.5}}
    assert run(made, "longer") == PretrainRun.model_validate(expected)
    assert run(made, "us3l") == PretrainRun.model_validate(RUN)


def test_likeness_goes_on_over_runs_studies_and_files_in_any_order() -> None:
    made = with_runs(last={"like": "other/middle", "batch": {"size": 64}})
    other = {
        "studies": {"other": params()["studies"]["tiny"] | {"runs": {"middle": {"like": "tiny/us3l", "epochs": 7}}}}
    }
    other["studies"]["other"]["tables"] = {}
    found = written(made | {"include": ["more.yaml"]}, more=other)
    assert run(found, "last") == PretrainRun.model_validate(RUN | {"epochs": 7, "batch": {"size": 64}})
    assert run(found, "middle", "other").epochs == 7


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({"x": {"like": "us3"}}, f"{TINY}.x.like: no run is called 'us3'; did you mean 'us3l'?"),
        ({"x": {"like": "tiy/us3l"}}, f"{TINY}.x.like: no run is called 'tiy/us3l'; did you mean 'tiny/us3l'?"),
        ({"x": {"like": "x"}}, f"{TINY}.x.like: goes round in a circle: tiny/x like tiny/x"),
        (
            {"x": {"like": "y"}, "y": {"like": "x"}},
            f"{TINY}.x.like: goes round in a circle: tiny/x like tiny/y like tiny/x",
        ),
        ({"x": {"like": 3}}, f"{TINY}.x.like: unknown key; "),
        ({"x": {"like": "us3l", "epohcs": 3}}, f"{TINY}.x.epohcs: unknown key; did you mean 'epochs'?"),
    ],
)
def test_a_likeness_with_nothing_is_refused(runs: Any, said: str) -> None:
    sentence = refusal(with_runs(**runs))
    assert sentence.startswith("params.yaml: ") and said in sentence


# --- methods --------------------------------------------------------------------------------------------------------


def test_a_method_is_named_or_like_a_named_one() -> None:
    changed = {"like": "infonce", "temperature": 0.2}
    made = with_runs(
        named=RUN | {"method": "infonce"}, changed=RUN | {"method": changed}, sharp=RUN | {"method": "sharp"}
    )
    found = written(made | {"methods": {"infonce": INFONCE, "sharp": changed}})
    assert run(found, "named") == run(found, "us3l")
    assert run(found, "changed") == run(found, "sharp")
    assert run(found, "changed").method == run(found, "us3l").method.model_copy(update={"temperature": 0.2})


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("infonc", f"{TINY}.x.method: no method is called 'infonc'; did you mean 'infonce'?"),
        ({"like": "byol"}, f"{TINY}.x.method.like: no method is called 'byol'; there is infonce"),
        ({"like": "infonce", "base": "kl"}, f"{TINY}.x.method.base: unknown key; did you mean 'base_loss'?"),
    ],
)
def test_a_method_that_there_is_not_is_refused(method: Any, said: str) -> None:
    assert refusal(with_runs(x=RUN | {"method": method}) | {"methods": {"infonce": INFONCE}}) == f"params.yaml: {said}"


def test_a_named_method_is_checked_where_no_run_takes_it() -> None:
    said = refusal(params() | {"methods": {"broken": INFONCE | {"base_loss": "infonc"}}})
    assert said.startswith("params.yaml: methods.broken.base_loss: must be one of ")
    said = refusal(params() | {"methods": {"first": {"like": "second"}, "second": INFONCE}})
    assert said == "params.yaml: methods.first.like: no method is called 'second'; there is none"


# --- widths ---------------------------------------------------------------------------------------------------------


def test_one_number_samples_one_width_alone() -> None:
    found = written(with_runs(narrow=RUN | {"sampling": 0.25}, full=RUN | {"sampling": 1}))
    assert run(found, "narrow").sampling == Sampling(range=(0.25, 0.25), widths_per_step=1)
    assert run(found, "full").sampling == Sampling(range=(1.0, 1.0), widths_per_step=1)


def test_widths_alone_are_a_run_each_and_a_row_of_the_table() -> None:
    made = with_runs(alone={"like": "us3l", "widths_alone": [1.0, 0.25]}, like={"like": "alone", "epochs": 9})
    made["studies"]["tiny"]["tables"]["main"]["rows"] += [{"label": name, "runs": name} for name in ("alone", "like")]
    study = written(made).studies["tiny"]
    assert list(study.runs) == ["us3l", "alone-w100", "alone-w025", "like-w100", "like-w025"]
    narrow = RUN | {"sampling": {"range": [0.25, 0.25], "widths_per_step": 1}}
    assert study.runs["alone-w025"] == PretrainRun.model_validate(narrow)
    assert study.runs["like-w025"] == PretrainRun.model_validate(narrow | {"epochs": 9})
    assert [row.runs for row in study.tables["main"].rows[1:]] == [
        {1.0: f"{name}-w100", 0.25: f"{name}-w025"} for name in ("alone", "like")
    ]


def test_a_run_like_widths_alone_may_take_a_sampling_instead() -> None:
    alone = {"like": "us3l", "widths_alone": [1.0, 0.25]}
    found = written(
        with_runs(alone=alone, all={"like": "alone", "widths_alone": None, "sampling": {"rule": "uniform"}})
    )
    assert run(found, "all").sampling == Sampling(rule="uniform")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths_alone": []}, "must be a list of different widths from 0.25 to 1.0, not []"),
        ({"widths_alone": 0.5}, "must be a list of different widths from 0.25 to 1.0, not 0.5"),
        ({"widths_alone": [1.0, 1]}, "must be a list of different widths from 0.25 to 1.0, not [1.0, 1]"),
        ({"widths_alone": [0.2]}, "must be a list of different widths from 0.25 to 1.0, not [0.2]"),
        ({"widths_alone": [True]}, "must be a list of different widths from 0.25 to 1.0, not [True]"),
        (
            {"widths_alone": [0.5], "sampling": 0.5},
            "says what sampling says: leave one of them out, or set it to null",
        ),
    ],
)
def test_impossible_widths_alone_are_refused(changes: Any, said: str) -> None:
    assert refusal(with_runs(x=RUN | changes)) == f"params.yaml: {TINY}.x.widths_alone: {said}"


# --- include --------------------------------------------------------------------------------------------------------


def test_included_files_are_as_if_they_stood_in_the_file() -> None:
    whole = params()
    parts = deepcopy(whole)
    datasets, studies = parts.pop("datasets"), parts.pop("studies")
    Path("more").mkdir()
    found = written(
        parts | {"include": ["more/data.yaml", "studies.yaml"], "datasets": {}, "studies": {}},
        **{"more/data": {"datasets": datasets}, "studies": {"studies": studies}},
    )
    assert found.model_copy(update={"include": []}) == Params.model_validate(whole)
    assert read(Path("params.yaml")) == whole


def test_files_are_included_from_beside_the_params_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(params() | {"include": ["more.yaml"]}, more={"protocols": {"near": {"kind": "knn"}}})
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert "near" in load(Path("../params.yaml")).protocols


def test_an_error_names_the_file_that_it_is_in() -> None:
    broken = params()["studies"]["tiny"] | {"runs": {"us3l": RUN | {"epochs": 0}}}
    said = refusal(params() | {"include": ["more.yaml"]}, more={"studies": {"more": broken}})
    assert said == "more.yaml: studies.more.runs.us3l.epochs: must be at least 1, not 0"
    lost = params()["studies"]["tiny"] | {"runs": {"us3l": {"like": "nosuch"}}}
    said = refusal(params() | {"include": ["more.yaml"]}, more={"studies": {"more": lost}})
    assert said == "more.yaml: studies.more.runs.us3l.like: no run is called 'nosuch'; there is us3l"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"build": []},
            "more.yaml: an included file must be a mapping with the keys datasets, methods, protocols, stud",
        ),
        (["studies"], "more.yaml: an included file must be a mapping with the keys datasets, methods, protocols, stud"),
        ({"studies": []}, "more.yaml: studies: must be a mapping of names"),
        ({"protocols": {"quick": {"kind": "knn"}}}, "more.yaml: protocols.quick: is in params.yaml already; keep one"),
    ],
)
def test_what_cannot_be_included_is_refused(more: Any, said: str) -> None:
    assert refusal(params() | {"include": ["more.yaml"]}, more=more).startswith(said)


def test_a_name_in_two_included_files_and_a_missing_file_are_refused() -> None:
    near = {"protocols": {"near": {"kind": "knn"}}}
    said = refusal(params() | {"include": ["one.yaml", "two.yaml"]}, one=near, two=near)
    assert said == "two.yaml: protocols.near: is in one.yaml already; keep one"
    said = refusal(params() | {"include": ["nosuch.yaml"]})
    assert said == "nosuch.yaml: no such file; run the command where params.yaml lies, or give --params"


@pytest.mark.parametrize(
    "content",
    [
        {"studies": 3},
        {"studies": {"a": 3}},
        {"studies": {"a": {"runs": 3, "tables": 3}}},
        {"studies": {"a": {"runs": {"b": 3}, "tables": {"c": {"rows": [3]}}}}},
        {"methods": 3},
        {"methods": {"a": 3}},
        {"include": 3},
        {"include": [3]},
    ],
)
def test_what_is_malformed_is_refused_in_one_sentence(content: Any) -> None:
    assert ".yaml: " in refusal(params() | content) or "3: no such file" in refusal(params() | content)
