"""Params files that would keep a reader busy, fill its memory or overflow its stack are refused in a sentence."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import RUN, params

from us3l.params.reading import load
from us3l.params.yaml_file import MOST_BYTES, MOST_VALUES, read_yaml
from us3l.utils.errors import UserError
from us3l.utils.reading import MOST_DEPTH

pytestmark = pytest.mark.usefixtures("must_end")
TOO_MANY = f"more than {MOST_VALUES} values, with its aliases written out"
TOO_DEEP = "nested more than 64 deep"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(text: str | bytes) -> str:
    """The sentence that refuses a params file, less the file's name."""
    Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        load(Path("params.yaml"))
    sentence = str(refused.value)
    assert sentence.startswith("params.yaml: ") and "\n" not in sentence and len(sentence) < 1500
    return sentence.removeprefix("params.yaml: ")


def multiplied(first: str, form: str, times: int = 30) -> str:
    """Anchors of which each is made of the one before; in the form, X stands for its alias."""
    lines = [f"x{number}: &x{number} {form.replace('X', f'*x{number - 1} ')}" for number in range(1, times)]
    return "\n".join([f"x0: &x0 {first}", *lines, ""])


@pytest.mark.parametrize(
    "text",
    [
        multiplied("[a, b]", "[X, X]"),
        multiplied("{a: b}", "{a: X, b: X}"),
        multiplied("{a: b}", "{<<: [X, X]}"),
        multiplied("{a: b}", "{<<: X, c: X, d: X}"),
        multiplied("{a: b}", "{<<: {<<: [X, X]}}"),
        multiplied("[a]", "{a: [X], b: {c: [X]}}"),
        multiplied("[a]", "[X, X]") + "? *x29\n: 1\n",
        f"a: &a {'x' * 100_000}\nb: [{'*a, ' * 1000}*a]\n",
        f"a: &a [{'x, ' * 1000}x]\nb: [{'*a, ' * 1000}*a]\n",
        f"[{'x, ' * MOST_VALUES}x]",
    ],
    ids=[
        "lists",
        "mappings",
        "merges",
        "merge-and-values",
        "merges-of-merges",
        "both",
        "key",
        "text",
        "flat",
        "values",
    ],
)
def test_values_that_multiply_are_refused_before_they_are_built(text: str) -> None:
    assert TOO_MANY in refusal(text)


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? ", "[[], "])
def test_values_that_are_nested_deeply_are_refused(unit: str) -> None:
    assert TOO_DEEP in refusal(unit * 100_000)


def test_the_deepest_values_are_read_and_deeper_ones_are_not() -> None:
    assert refusal("[" * MOST_DEPTH + "]" * MOST_DEPTH).startswith("the file: must be a mapping")
    assert TOO_DEEP in refusal("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}", "a: &a [{b: [*a]}]"])
def test_an_alias_within_its_own_anchor_is_refused(text: str) -> None:
    assert refusal(text).endswith("*a stands within &a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("build: " + "1" * 5000, "a number of 5000 characters, and 200 are enough"),
        ("build: 0x" + "f" * 50_000, "a number of 50002 characters, and 200 are enough"),
        ("build: 1" + ":10" * 100_000, "a number of 300001 characters, and 200 are enough"),
        ("a" * 1000 + ": 1", "a key of 1000 characters, and 200 are enough"),
        ("? [a]\n: 1", "a key must be text"),
        ("? {a: b}\n: 1", "a key must be text"),
        ("build: !!int ''", "the tag 'tag:yaml.org,2002:int' asks for another type; write plain values"),
        ("build: !!timestamp x", "the tag 'tag:yaml.org,2002:timestamp' asks for another type; write plain values"),
        ("build: !!set {a, b}", "the tag 'tag:yaml.org,2002:set' asks for another type; write plain values"),
        ("build: 1e999", "build: must be a list, not inf"),
        ("build: .nan", "build: must be a list, not nan"),
        ("build: tiny".encode("utf-16"), "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (
            "x" * (MOST_BYTES + 1),
            f"its {MOST_BYTES + 1} bytes are more than the {MOST_BYTES} that such a file may have",
        ),
    ],
)
def test_what_no_params_file_has_is_refused(text: str | bytes, said: str) -> None:
    assert said in refusal(text)


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params()), encoding="utf-8-sig")
    assert load(Path("params.yaml")).build == ["tiny"]


def test_a_pipe_is_refused_instead_of_waited_for() -> None:
    os.mkfifo("params.yaml")
    with pytest.raises(UserError, match=r"^params\.yaml: not readable: a pipe or a device, and no file; give a YAML"):
        load(Path("params.yaml"))


def test_honest_anchors_are_shared_as_before() -> None:
    shared = "a: &a {x: [1, 2], y: 3}\nb: {<<: *a, y: 4}\nc: [*a, *a]\n"
    Path("x.yaml").write_text(shared * 1)
    assert read_yaml(Path("x.yaml")) == {
        "a": {"x": [1, 2], "y": 3},
        "b": {"x": [1, 2], "y": 4},
        "c": [{"x": [1, 2], "y": 3}] * 2,
    }


def of(**runs: Any) -> str:
    content = params()
    content["studies"]["tiny"]["runs"] |= runs
    return yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False)


def teaching(teacher: str) -> dict[str, Any]:
    return RUN | {"method": RUN["method"] | {"momentum": None, "teacher": teacher}}


def test_runs_that_are_like_others_without_end_are_refused() -> None:
    chain = {f"r{number}": {"like": f"r{number + 1}"} for number in range(100)} | {"r100": {"like": "us3l"}}
    where, fan = "studies.tiny.runs.r0.like: ", {f"r{number}": {"like": "us3l"} for number in range(5000)}
    Path("params.yaml").write_text(of(**{name: run for name, run in chain.items() if name != "r0"}))
    assert len(load(Path("params.yaml")).studies["tiny"].runs) == 101
    assert refusal(of(**chain)) == f"{where}is like a run that is like another, more than 100 times"
    assert refusal(of(**fan)) == "studies: have more than 5000 runs, counting those of each width"
    alone = {"us3l": RUN | {"widths_alone": [0.25 + number / 1000 for number in range(100)]}}
    assert refusal(of(**alone, **dict(list(fan.items())[:60]))).startswith("studies: have more than 5000 runs")
    wide = {"us3l": RUN | {"widths_alone": [0.25 + number / 1000 for number in range(101)]}}
    assert refusal(of(**wide)).endswith("widths_alone: lists 101 widths, and may list 100")


def test_teachers_of_teachers_without_end_are_refused() -> None:
    chain = {f"r{number}": teaching(f"r{number + 1}") for number in range(300)} | {"r300": RUN}
    said = "studies.tiny.runs.r0.method.teacher: takes weights from a run that takes them from another, more than 100"
    assert refusal(of(**chain)).startswith(said)


def test_keys_that_methods_collect_from_each_other_are_refused() -> None:
    content = params()
    content["methods"] = {"m0": RUN["method"]} | {f"m{n}": {"like": f"m{n - 1}", f"k{n}": 1} for n in range(1, 2000)}
    said = "has 51 keys with those that it is like, and may have 50"
    assert refusal(yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False)) == f"methods.m47: {said}"


def test_more_evaluations_than_anybody_runs_are_refused() -> None:
    content = params()
    content["studies"]["tiny"] |= {"seeds": [*range(1000)], "widths": [0.25 + n / 1000 for n in range(100)]}
    content["studies"]["tiny"]["runs"] = {"us3l": RUN} | {f"r{number}": {"like": "us3l"} for number in range(10)}
    said = "studies: have 1100000 evaluations, counting seeds and widths, and may have 1000000"
    assert refusal(yaml.dump(content, Dumper=yaml.CSafeDumper)) == said


def test_a_long_text_with_a_line_break_is_refused_and_not_shown_in_full() -> None:
    text = yaml.safe_dump(params()).replace("label: US3L", f'label: "{"a" * 1_000_000}\\nb"')
    assert refusal(text).startswith("studies.tiny.tables.main.rows.0.label: must be one line of text, not 'aaa")
