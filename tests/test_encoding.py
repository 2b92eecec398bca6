"""Every file is read and written as UTF-8, whatever the locale: no call leaves the encoding out."""

import ast

import pytest
from project import ROOT

SOURCES = [*sorted((ROOT / "us3l").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
TEXT = {"read_text", "write_text", "makefile", "open"}


def calls_without_encoding(source: str) -> list[str]:
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [f"line {each.lineno}: {ast.unparse(each)}" for each in found if lacks_encoding(each)]


def lacks_encoding(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    texts = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if {"text", "universal_newlines"} & given:  # of subprocess
        return True
    if name not in TEXT or "encoding" in given or "utf-8" in texts:
        return False
    if name in ("read_text", "write_text", "makefile"):
        return True
    module = ast.unparse(call.func).rpartition(".")[0]
    opens_bytes = any("b" in text for text in texts) or module in ("os", "gzip", "tarfile", "archive", "Image")
    return not opens_bytes


def test_python_says_its_encoding() -> None:
    wrong = {path: calls_without_encoding(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert [f"{path}: {call}" for path, calls in wrong.items() for call in calls] == []


def test_rules_say_their_encoding() -> None:
    lines = [line for path in RULES for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if any(f"{name}(" in line for name in TEXT) and "utf-8" not in line] == []


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text()",
        "path.write_text(text)",
        "path.read_text(errors='replace')",
        "open(path)",
        "path.open('w')",
        "connection.makefile()",
        "run(command, text=True)",
    ],
)
def test_a_call_that_does_not_is_found(source: str) -> None:
    assert calls_without_encoding(source) == [f"line 1: {source}"]
