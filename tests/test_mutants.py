"""The mutants of tests/support/mutants.py: what is generated of a text, what judges it, that each has its place."""

from pathlib import Path

import pytest
from edits import PACKAGE, Edit, apply
from generated_edits import edits_of, generated_edits
from mutants import equivalent, judges, room
from written_edits import WRITTEN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a = b < c", {"(b <= c)"}),
        ("a = b == c", {"(b != c)"}),
        ("a = b is None", {"(b is not None)"}),
        ("a = b in c", {"(b not in c)"}),
        ("a = b + c", {"(b - c)"}),
        ("a = b // c", {"(b % c)"}),
        ("a = b | c", {"(b & c)"}),
        ("a = b and c", {"(b or c)", "(b)", "(c)"}),
        ("a = not b", {"(b)"}),
        ("a = -b", {"(b)"}),
        ("a = 3", {"4"}),
        ("a = 0.5", {"1.0"}),
        ("a = 0.0", {"1.0"}),
        ("a = True", {"False"}),
        ("a = f(b, c)", {"(f(c, b))"}),
        ("a = f(b, k=c)", {"(f(b))"}),
        ("a = f(b, k=c, l=d)", {"(f(b, l=d))", "(f(b, k=c))"}),
        ("a = sorted(b)", {"(b)"}),
        ("a = b.clone()", {"(b)"}),
        ("a = [b for b in c if d]", {"([b for b in c])", "(not d)"}),
        ("a = b if c else d", {"(not c)"}),
        ("a = b[c:d]", {":d"}),
        ("f(b)", {"pass"}),
        ("a += b", {"pass"}),
        ("a.b = c", {"pass"}),
        ("raise a", {"pass"}),
        ("if a: b = c", {"(not a)"}),
        ("def f(): return b", {"return None"}),
        ('"""What it is."""', set()),
        ("assert a < b", set()),
        ("a = f(b, strict=True)", set()),
        ("@dataclass(frozen=True)\nclass A: ...", set()),
        ("import a", set()),
        ("def f(a: int | None = b) -> int | None: ...", set()),
    ],
)
def test_what_is_generated_of_a_line(line: str, expected: set[str]) -> None:
    made = edits_of(f"{line}\n", "x.py")
    assert len(made) == len(expected)
    assert {edit.old for edit in made} <= {f"{line}\n", line}
    for new in expected:
        assert any(new in edit.new for edit in made), (new, made)


def test_the_text_of_an_edit_is_extended_until_it_is_there_once() -> None:
    text = "def f():\n    return 1\n\n\ndef g():\n    return 1\n"
    made = edits_of(text, "x.py")
    assert all(text.count(edit.old) == 1 for edit in made)
    results = {text.replace(edit.old, edit.new) for edit in made}
    assert text.replace("return 1\n\n", "return 2\n\n") in results and text[:-2] + "2\n" in results


def test_the_same_module_gives_the_same_edits_in_the_same_order() -> None:
    first = [*generated_edits("utils/philox.py")]
    assert first == [*generated_edits("utils/philox.py")]
    assert len(set(first)) == len(first) > 50


def test_an_edit_of_a_text_that_is_not_there_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("a = 1\na = 1\n")
    with pytest.raises(ValueError, match=r"x\.py has 2 times, and not once: a = 1"):
        apply(Edit("x.py", "a = 1", "a = 2"), tmp_path)
    apply(Edit("x.py", "a = 1\na", "a = 2\nb"), tmp_path)
    assert (tmp_path / "x.py").read_text() == "a = 2\nb = 1\n"


def test_a_mutant_is_judged_by_the_tests_that_call_its_function_the_fast_ones_of_its_room_first() -> None:
    here, other = ("utils/philox.py", "uniform"), ("utils/philox.py", "permutation")
    calls = {
        "tests/utils/test_a.py::slow": (2.0, {here}),
        "tests/utils/test_a.py::fast": (0.1, {here, other}),
        "tests/data/test_b.py::fast": (0.1, {here}),
        "tests/utils/test_a.py::other": (0.1, {other}),
        "tests/data/test_b.py::too_slow": (99.0, {here}),
    }
    edit = Edit("utils/philox.py", "key.purpose << 16", "key.purpose << 15")
    fast, foreign, slow = "tests/utils/test_a.py::fast", "tests/data/test_b.py::fast", "tests/utils/test_a.py::slow"
    assert [*judges(edit, calls)] == [fast, foreign, slow]
    assert [*judges(edit, calls, {slow})] == [slow, fast, foreign], "one that has caught others before"
    constant = Edit("utils/philox.py", "ORDER_PART = 0xFFFF", "ORDER_PART = 1")
    assert {*judges(constant, calls)} == {*calls} - {"tests/data/test_b.py::too_slow"}


@pytest.mark.parametrize("edit", WRITTEN, ids=lambda edit: edit.module)
def test_a_mutant_by_hand_finds_its_text_once(edit: Edit) -> None:
    assert (PACKAGE / edit.module).read_text().count(edit.old) == 1
    assert edit.old != edit.new


def test_each_equivalent_mutant_is_of_the_package_as_it_is_and_has_a_reason() -> None:
    for (module, old, _), reason in equivalent().items():
        text = " ".join((PACKAGE / module).read_text().split())
        assert old in text, f"{module} has no longer: {old}; remove it from equivalent_mutants.csv"
        assert len(reason.split()) > 3


@pytest.mark.parametrize(
    ("module", "expected"), [("cli/make.py", "cli"), ("__main__.py", "cli"), ("data/augment/draw.py", "data")]
)
def test_a_module_is_of_a_room(module: str, expected: str) -> None:
    assert room(module) == expected
