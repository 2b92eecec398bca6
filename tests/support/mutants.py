"""Mutation tests: single edits of the package, each made in a copy and judged by the tests that call what it changes.

    python tests/support/mutants.py measure [FILE...]  notes which functions each test calls, and how long it takes
    python tests/support/mutants.py [PATH...]          tries mutants of modules or rooms below us3l; of all by default
    python tests/support/mutants.py report             writes docs/mutants.md from what was tried

Mutants are generated from the syntax trees, the same ones for the same code; others were written by hand. One process
imports PyTorch and pytest and is forked for each mutant, which ends at the first test that fails. What was caught by a
test is tried again only after an edit of the module or of the test.
"""

import ast
import csv
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from edits import PACKAGE, Edit, apply, as_code
from generated_edits import generated_edits

ROOT = PACKAGE.parent
MEMORY = ROOT / ".mutants"  # what was measured and tried
TRIED = MEMORY / "tried.json"
LEFT_OUT = (".git", ".venv", MEMORY.name, ".snakemake", ".us3l", "runs", "__pycache__", ".*_cache")
NOT_HERE = ("models/ghost_batch_norm_triton.py",)  # runs on a GPU alone
PRELOADED = (
    *("numpy", "pandas", "PIL.Image", "pydantic", "pytest", "rich.progress", "safetensors.torch", "scipy.stats"),
    *("sklearn.datasets", "sklearn.linear_model", "torch", "torchvision.transforms.v2", "typer", "yaml"),
)
LINES = 25  # of a module for each of its mutants
SECONDS = 60.0  # of tests, as they were measured, that judge a mutant
PATIENCE = 5  # times as long as its tests took may a mutant take, and a minute

T = TypeVar("T")
Measured = dict[str, tuple[float, set[tuple[str, str]]]]  # by the test: seconds, and functions that it calls


@dataclass(frozen=True)
class Outcome:
    """Whether and by which test a mutant was caught, or how many did not catch it."""

    by: str | None
    tests: int


# --- a copy of the project and processes in it ----------------------------------------------------------------------


class Workshop:
    """A copy of the project's working tree, in which one module at a time is edited."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.log = folder / "tree", folder / "log"
        shutil.copytree(ROOT, self.tree, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for name in PRELOADED:
            import_module(name)

    def try_(self, edit: Edit, tests: dict[str, float]) -> Outcome:
        """Run tests, in their order, until one fails."""
        path = self.tree / "us3l" / edit.module
        text = path.read_text()
        apply(edit, self.tree / "us3l")
        _forget_compiled(path)
        try:
            code = self._run([*tests], 60 + PATIENCE * sum(tests.values()))
        finally:
            path.write_text(text)
            _forget_compiled(path)
        by = self.log.with_suffix(".failed").read_text()
        return Outcome("no end" if code is None else by or ("no test runs" if code else None), len(tests))

    def _run(self, tests: list[str], seconds: float) -> int | None:
        """Run pytest in a fork; its exit code, None where it does not end in time."""
        self.log.with_suffix(".failed").write_text("")
        pid = os.fork()
        if pid == 0:
            _become(self.tree, self.log)
            import pytest

            files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
            chosen = Chosen(tests, self.log.with_suffix(".failed"))
            os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files], plugins=[chosen]))
        return _wait(pid, seconds)

    def measure(self, file: str, folder: Path) -> None:
        """Write the calls of a file's tests to `folder`/calls.json."""
        pid = os.fork()
        if pid == 0:
            _become(self.tree, self.log)
            os.environ["US3L_CALLS"] = str(folder)
            import pytest

            os._exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "calls", file]))
        _wait(pid, 3600)


def _become(tree: Path, log: Path) -> None:
    """Make a fork a process of its own, in the copy of the project."""
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(tree)
    here = str(ROOT / "tests" / "support")
    sys.path[:] = [str(tree), str(tree / "tests" / "support"), *(p for p in sys.path if p not in ("", here, str(ROOT)))]
    os.environ["PYTHONPATH"] = str(tree)
    for name in ("edits", "generated_edits"):  # tests import those of the copy
        del sys.modules[name]


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _forget_compiled(module: Path) -> None:
    """Delete what Python has compiled: it takes a module for the same where size and second of its date are."""
    for compiled in module.parent.glob(f"__pycache__/{module.stem}.*.pyc"):
        compiled.unlink()


class Chosen:
    """A plugin of pytest: runs tests in this order, and writes down the first that fails."""

    def __init__(self, tests: Sequence[str], failed: Path) -> None:
        self.order, self.failed = {test: number for number, test in enumerate(tests)}, failed

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((each for each in items if each.nodeid in self.order), key=lambda i: self.order[i.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.write_text(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.write_text(report.nodeid)


# --- what judges a mutant -------------------------------------------------------------------------------------------


def measured() -> Measured:
    """Return the calls of all tests that were measured and passed."""
    found: Measured = {}
    for path in MEMORY.glob("calls/*.json"):
        content = json.loads(path.read_text())
        functions = [(module, name) for module, name in content["functions"]]
        for test, (seconds, called) in content["tests"].items():
            found[test] = seconds, {functions[index] for index in called}
    return found


def judges(edit: Edit, tests: Measured) -> dict[str, float]:
    """Return the tests that may catch an edit, with their seconds: those of its room and the fast ones first.

    They call the function that it changes; where it is in no function, any of its module or of those that import that.
    """
    function = _function(edit)
    modules = {edit.module} if function else {edit.module, *_importers(edit.module)}
    callers = {
        test: seconds
        for test, (seconds, calls) in tests.items()
        if any(module in modules and (not function or name == function) for module, name in calls)
    }

    def place(test: str) -> tuple[bool, int, str, float]:
        file = test.partition("::")[0]
        return room(edit.module) not in Path(file).parts, int(callers[test]), file, callers[test]

    found, total = {}, 0.0
    for test in sorted(callers, key=place):
        total += callers[test]
        if total < SECONDS or not found:
            found[test] = callers[test]
    return found


def room(module: str) -> str:
    return module.partition("/")[0] if "/" in module else "cli"


def _function(edit: Edit) -> str | None:
    """Return the qualified name of the function whose code an edit changes; None outside of functions."""
    text = (PACKAGE / edit.module).read_text()
    same = next((i for i, (a, b) in enumerate(zip(edit.old, edit.new, strict=False)) if a != b), len(edit.new))
    line = text[: text.index(edit.old) + same].count("\n") + 1
    return _innermost(ast.parse(text), line, "")


def _innermost(node: ast.AST, line: int, prefix: str) -> str | None:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.stmt) and child.lineno <= line <= (child.end_lineno or 0)):
            continue
        match child:
            case ast.FunctionDef(name=name, body=[first, *_]):
                inner = _innermost(child, line, f"{prefix}{name}.<locals>.")
                return inner or (prefix + name if line >= first.lineno else None)
            case ast.ClassDef(name=name):
                return _innermost(child, line, f"{prefix}{name}.")
        return _innermost(child, line, prefix)
    return None


def _importers(module: str) -> Iterator[str]:
    name = f"us3l.{module.removesuffix('.py').replace('/', '.')} "
    for path in PACKAGE.rglob("*.py"):
        if f"from {name}" in path.read_text():
            yield str(path.relative_to(PACKAGE))


# --- mutants --------------------------------------------------------------------------------------------------------


def mutants(paths: Sequence[str]) -> list[Edit]:
    """Return the edits to try below some paths: those by hand, and generated ones, a module's share by its length."""
    by_hand = _apart(_by_hand)
    modules = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
    generated = [
        edit
        for module in modules
        if module not in NOT_HERE
        for edit in islice(generated_edits(module), -(-(PACKAGE / module).read_text().count("\n") // LINES))
    ]
    found = dict.fromkeys([*by_hand, *generated])
    return [edit for edit in found if not paths or any(edit.module.startswith(path) for path in paths)]


def _apart(function: Callable[[], T]) -> T:
    """Call a function that imports the package in another process, since this one must not."""
    with ProcessPoolExecutor(1, get_context("fork")) as apart:
        return apart.submit(function).result()


def _by_hand() -> list[Edit]:
    from mutations import MUTATIONS
    from written_edits import WRITTEN

    return [edit._replace(run="") for edit in (*WRITTEN, *MUTATIONS)]


# --- what was tried -------------------------------------------------------------------------------------------------


def equivalent() -> dict[tuple[str, str, str], str]:
    """Return by module, old and new text the reasons why mutants cannot be caught."""
    with (ROOT / "tests" / "support" / "equivalent_mutants.csv").open(newline="") as file:
        return {(row["module"], row["old"], row["new"]): row["reason"] for row in csv.DictReader(file)}


def _key(edit: Edit) -> tuple[str, str, str]:
    """Return module, old and new text, without layout and what both have in common at their beginning."""
    old, new = (" ".join(text.split()) for text in (edit.old, edit.new))
    return edit.module, old, new


def _state(edit: Edit, outcome: Outcome) -> str:
    """Hash what a mutant's outcome may depend on: its text, its module and the test that caught it."""
    files = [PACKAGE / edit.module, *([ROOT / str(outcome.by).partition("::")[0]] if outcome.by else [])]
    content = [path.read_text() if path.is_file() else "" for path in files]
    return sha256(repr([edit, content]).encode()).hexdigest()


class Tried:
    """The outcomes so far, on disk; those that still hold are not tried again."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[Any]] = json.loads(TRIED.read_text()) if TRIED.is_file() else {}

    def get(self, edit: Edit) -> Outcome | None:
        by, tests, state = self.outcomes.get(repr(edit), (None, 0, ""))
        outcome = Outcome(by, tests)
        return outcome if by and state == _state(edit, outcome) else None

    def verdict(self, edit: Edit, known: Container[Any]) -> str:
        """Return caught, missed or equivalent. Raises SystemExit where the mutant is still to be tried."""
        if _key(edit) in known:
            return "equivalent"
        if repr(edit) not in self.outcomes:
            raise SystemExit(f"not tried yet: {edit}")
        return "caught" if self.outcomes[repr(edit)][0] else "missed"

    def keep(self, edit: Edit, outcome: Outcome) -> None:
        self.outcomes[repr(edit)] = [outcome.by, outcome.tests, _state(edit, outcome)]
        TRIED.write_text(json.dumps(self.outcomes, indent=0))


def try_all(paths: Sequence[str]) -> None:
    """Try the mutants that are not known to be caught or equivalent, and print each with what catches it."""
    tests, tried, known = measured(), Tried(), equivalent()
    waiting = [edit for edit in mutants(paths) if not tried.get(edit) and _key(edit) not in known]
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for edit in waiting:
            chosen = judges(edit, tests)
            outcome = workshop.try_(edit, chosen) if chosen else Outcome(None, 0)
            tried.keep(edit, outcome)
            verdict = f"caught by {outcome.by}" if outcome.by else f"missed by {outcome.tests} tests"
            print(
                f"{room(edit.module)}: {edit.module}: {as_code(edit.old)} -> {as_code(edit.new)}: {verdict}", flush=True
            )


INTRODUCTION = """# What the tests see

A mutant is the package with one small edit: another comparison, constant or operator, an argument or a call left out,
a wrong seed, an order turned round. The tests that call what it changes run until one fails: then the mutant is caught.
One that changes nothing that anybody could see is equivalent; the reasons stand in
`tests/support/equivalent_mutants.csv`.

`python tests/support/mutants.py` makes this page: {n} mutants, {written} of them by hand, with Python {python}, PyTorch
{torch} and pytest {pytest}, on a CPU. Code that runs on a GPU alone is left out. Of the mutants that are not equivalent
{share:.1%} are caught.

| room | mutants | caught | missed | equivalent |
|---|---|---|---|---|
"""


def report() -> str:
    """Return docs/mutants.md, from the outcomes on disk."""
    tried, known, found = Tried(), equivalent(), mutants([])
    verdicts = {edit: tried.verdict(edit, known) for edit in found}
    counts = Counter((room(edit.module), verdict) for edit, verdict in verdicts.items())
    rooms = sorted({of for of, _ in counts})
    caught, missed = (sum(counts[of, verdict] for of in rooms) for verdict in ("caught", "missed"))
    about = {name: version(name) for name in ("torch", "pytest")} | {"python": platform.python_version()}
    written = len(_apart(_by_hand))
    text = INTRODUCTION.format(n=len(found), written=written, share=caught / (caught + missed), **about)
    for of in [*rooms, "all"]:
        each = [sum(counts[r, v] for r in rooms if of in (r, "all")) for v in ("caught", "missed", "equivalent")]
        text += f"| {of} | {sum(each)} | {' | '.join(map(str, each))} |\n"
    rows = [
        f"| {edit.module} | {as_code(edit.old)} | {as_code(edit.new)} |" for edit in found if verdicts[edit] == "missed"
    ]
    return text + "".join(
        ["\n## Missed\n\n| module | was | is |\n|---|---|---|\n", *(f"{row}\n" for row in rows)] if rows else []
    )


def measure(files: Sequence[str]) -> None:
    """Measure the tests of these files, or of all."""
    every = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py"))
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for number, file in enumerate(files or every):
            calls = Path(folder, str(number))
            calls.mkdir()
            workshop.measure(file, calls)
            if not (calls / "calls.json").is_file():
                raise SystemExit(f"{file}: {workshop.log.read_text()[-500:]}")
            (MEMORY / "calls").mkdir(parents=True, exist_ok=True)
            shutil.move(calls / "calls.json", MEMORY / "calls" / f"{file.replace('/', '.')}.json")
            print(f"{file}: {workshop.log.read_text().splitlines()[-1]}", flush=True)


def main() -> None:
    """Do what the command line asks for."""
    match sys.argv[1:]:
        case ["measure", *files]:
            measure(files)
        case ["report"]:
            (ROOT / "docs" / "mutants.md").write_text(report())
        case paths:
            try_all(paths)


if __name__ == "__main__":
    main()
