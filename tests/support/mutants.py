"""Mutation tests: single edits of the package, each made in a copy and judged by the tests that call what it changes.

    python tests/support/mutants.py measure [FILE...]  notes which functions each test calls, and how long it takes
    python tests/support/mutants.py [PATH...]          tries mutants of modules or rooms below us3l; of all by default
    python tests/support/mutants.py report             writes docs/mutants.md from what was tried

Mutants are generated from the syntax trees, the same ones for the same code; others were written by hand. One process
imports the package and collects the tests; for each mutant a fork exchanges the function and runs tests until one
fails. What was caught by a test is tried again only after an edit of the module or of the test.
"""

import ast
import csv
import inspect
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from edits import PACKAGE, Edit, apply, as_code
from generated_edits import generated_edits

ROOT = PACKAGE.parent
MEMORY = ROOT / ".mutants"  # what was measured and tried
TRIED = MEMORY / "tried.json"
LEFT_OUT = (".git", ".venv", MEMORY.name, ".snakemake", ".us3l", "runs", "__pycache__", ".*_cache")
NOT_HERE = ("models/ghost_batch_norm_triton.py",)  # runs on a GPU alone
LINES = 60  # of a module for each of its mutants
SECONDS = 30.0  # of processors, of tests that judge a mutant
SLOW = 0.5  # seconds from which on a test comes after the others
PATIENCE = 5  # times as long as its tests took may a mutant take, and a minute

T = TypeVar("T")
Measured = dict[str, tuple[float, set[tuple[str, str]]]]  # by the test: seconds, and functions that it calls


@dataclass(frozen=True)
class Outcome:
    """Whether and by which test a mutant was caught, or how many did not catch it."""

    by: str | None
    tests: int


# --- a copy of the project and processes in it ----------------------------------------------------------------------


class Trials:
    """A plugin of pytest: instead of running the tests that were collected, runs those that `work` asks for in forks.

    All is done in a copy of the project, `tree`, whose modules are edited one at a time.
    """

    def __init__(self, tree: Path, work: Callable[["Trials"], None]) -> None:
        self.tree, self.work, self.failed = tree, work, tree.with_name("failed")
        self.items: dict[str, Any] = {}
        self.passing: dict[str, bool] = {}  # without an edit
        self.in_fork = False

    def pytest_runtestloop(self, session: Any) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.work(self)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if self.in_fork and report.failed:
            self.failed.write_text(report.nodeid)
            os._exit(1)

    def try_(self, edit: Edit, tests: dict[str, float]) -> Outcome:
        """Make an edit, and run tests in their order until one fails that passes without the edit."""
        outcome = self._try(edit, tests)
        if outcome.by in self.items and not self._passes(outcome.by):
            return self.try_(edit, {test: seconds for test, seconds in tests.items() if test != outcome.by})
        return outcome

    def _passes(self, test: str) -> bool:
        """Tell whether a test passes in a fork of its own, without any edit."""
        if test not in self.passing:
            self.passing[test] = self.fork(lambda: self._run([test]), 600) == 0
        return self.passing[test]

    def _try(self, edit: Edit, tests: dict[str, float]) -> Outcome:
        path = self.tree / "us3l" / edit.module
        text = path.read_text()
        apply(edit, self.tree / "us3l")
        _forget_compiled(path)
        self.failed.write_text("no test runs")
        try:
            code = self.fork(lambda: self._judge(edit, path, tests), 60 + PATIENCE * sum(tests.values()))
        finally:
            path.write_text(text)
            _forget_compiled(path)
        return Outcome("no end" if code is None else self.failed.read_text() if code else None, len(tests))

    def fork(self, function: Callable[[], int], seconds: float) -> int | None:
        """Call a function in a fork and return its exit code; None where it does not end in time."""
        pid = os.fork()
        if pid == 0:
            os.setsid()
            self.in_fork = True
            os._exit(function())
        return _wait(pid, seconds)

    def _judge(self, edit: Edit, path: Path, tests: dict[str, float]) -> int:
        """Run tests on an edited module; its functions are exchanged, and where that is not enough all is read anew."""
        function = _function(edit)
        if not (function and _exchange(path, edit.module, function.partition(".<locals>")[0])):
            return self._read_anew(tests)
        return self._run(tests)

    def _run(self, tests: Iterable[str]) -> int:
        chosen = [self.items[test] for test in tests if test in self.items]
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return 0

    def _read_anew(self, tests: dict[str, float]) -> int:
        import pytest

        for name, module in [*sys.modules.items()]:
            if str(getattr(module, "__file__", None)).startswith(f"{self.tree}/"):
                del sys.modules[name]
        files = dict.fromkeys(_file(test) for test in tests)
        again = Chosen(tests, self)
        return int(pytest.main(["-p", "no:terminal", "-p", "no:cacheprovider", *files], plugins=[again]))


class Chosen:
    """A plugin of pytest: runs tests in this order."""

    def __init__(self, tests: Iterable[str], trials: Trials) -> None:
        self.order, self.pytest_runtest_logreport = (
            {test: i for i, test in enumerate(tests)},
            trials.pytest_runtest_logreport,
        )
        self.pytest_collectreport = trials.pytest_runtest_logreport

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((each for each in items if each.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def in_a_copy(files: Iterable[str], work: Callable[[Trials], None]) -> None:
    """Collect tests in a copy of the project, and let `work` run them."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        os.chdir(tree)
        here = ("", str(ROOT), str(ROOT / "tests" / "support"))
        sys.path[:] = [str(tree), str(tree / "tests" / "support"), *(path for path in sys.path if path not in here)]
        os.environ["PYTHONPATH"] = str(tree)
        for name in ("edits", "generated_edits"):  # tests import those of the copy
            del sys.modules[name]
        import pytest

        options = ["-p", "no:terminal", "-p", "no:cacheprovider", "--capture=sys"]
        if code := pytest.main([*options, *files], plugins=[Trials(tree, work)]):
            raise SystemExit(f"the tests cannot be collected: pytest ends with {code!r}")


def _exchange(path: Path, module: str, function: str) -> bool:
    """Give a function of a module that was imported the code that it has in the file now; tell whether that is all."""
    found: Any = sys.modules.get(f"us3l.{module.removesuffix('.py').replace('/', '.')}")
    for name in function.split("."):
        found = inspect.getattr_static(found, name, None)
    for inner in ("fget", "func", "__func__", "__wrapped__"):  # of properties, cached ones, methods and decorators
        found = getattr(found, inner, found)
    new = _code_of(compile(path.read_text(), str(path), "exec"), function)
    if not inspect.isfunction(found) or found.__code__.co_qualname != function or new is None:
        return False
    if new == found.__code__ or new.co_freevars != found.__code__.co_freevars:  # its defaults have changed, perhaps
        return False
    found.__code__ = new
    return True


def _code_of(code: CodeType, function: str) -> CodeType | None:
    """Find the code of a function by its qualified name."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_qualname == function:
                return each
            if function.startswith(f"{each.co_qualname}.") and (inner := _code_of(each, function)):
                return inner
    return None


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _forget_compiled(module: Path) -> None:
    """Delete what Python has compiled: it takes a module for the same where size and second of its date are."""
    for compiled in module.parent.glob(f"__pycache__/{module.stem}.*.pyc"):
        compiled.unlink()


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


def judges(edit: Edit, tests: Measured, proven: Container[str] = ()) -> dict[str, float]:
    """Return the tests that may catch an edit, with their seconds: proven ones, fast ones, those of its room first.

    They call the function that it changes; where it is in no function, they are of a file with tests that call one of
    its module or of those that import that.
    """
    function = _function(edit)
    if function:
        callers = {test: seconds for test, (seconds, calls) in tests.items() if (edit.module, function) in calls}
    else:
        modules = {edit.module, *_importers(edit.module)}
        files = {_file(test) for test, (_, calls) in tests.items() if any(module in modules for module, _ in calls)}
        callers = {test: seconds for test, (seconds, _) in tests.items() if _file(test) in files}

    def place(test: str) -> tuple[Any, ...]:
        seconds = callers[test]
        return test not in proven, seconds > SLOW and seconds, room(edit.module) not in Path(test).parts, seconds

    found, total = {}, 0.0
    for test in sorted(callers, key=place):
        total += callers[test]
        if total < SECONDS or not found:
            found[test] = callers[test]
    return found


def _file(test: str) -> str:
    return test.partition("::")[0]


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

    def proven(self, module: str) -> set[str]:
        """Return the tests that have caught mutants of a module."""
        return {by for edit, (by, _, _) in self.outcomes.items() if by and f"module={module!r}" in edit}

    def verdict(self, edit: Edit, known: Container[Any]) -> str:
        """Return one of VERDICTS."""
        if _key(edit) in known:
            return "equivalent"
        if repr(edit) not in self.outcomes:
            return "not tried"
        return "caught" if self.outcomes[repr(edit)][0] else "missed"

    def keep(self, edit: Edit, outcome: Outcome) -> None:
        self.outcomes[repr(edit)] = [outcome.by, outcome.tests, _state(edit, outcome)]
        TRIED.write_text(json.dumps(self.outcomes, indent=0))


def try_all(paths: Sequence[str]) -> None:
    """Try the mutants that are not known to be caught or equivalent, and print each with what catches it."""
    tests, tried, known = measured(), Tried(), equivalent()
    waiting = [edit for edit in mutants(paths) if not tried.get(edit) and _key(edit) not in known]

    def work(trials: Trials) -> None:
        for edit in waiting:
            chosen = judges(edit, tests, tried.proven(edit.module))
            outcome = trials.try_(edit, chosen) if chosen else Outcome(None, 0)
            tried.keep(edit, outcome)
            verdict = f"caught by {outcome.by}" if outcome.by else f"missed by {outcome.tests} tests"
            change = f"{edit.module}: {as_code(edit.old)} -> {as_code(edit.new)}"
            print(f"{room(edit.module)}: {change}: {verdict}", file=sys.__stdout__, flush=True)

    in_a_copy({_file(test) for test in tests}, work)


VERDICTS = ("caught", "missed", "equivalent", "not tried")
INTRODUCTION = """# What the tests see

A mutant is the package with one small edit: another comparison, constant or operator, an argument or a call left out,
a wrong seed, an order turned round. The tests that call what it changes run until one fails: then the mutant is caught.
It is missed where none fails of those that take half a minute, the fast ones first. One that changes
nothing that anybody could see is equivalent; the reasons stand in `tests/support/equivalent_mutants.csv`.

`python tests/support/mutants.py report` writes this page: {n} mutants, {written} of them by hand, with Python {python},
PyTorch {torch} and pytest {pytest}, on a CPU. Code that runs on a GPU alone is left out. Of the mutants that were tried
and are not equivalent {share:.1%} are caught.

| room | mutants | caught | missed | equivalent | not tried |
|---|---|---|---|---|---|
"""


def report() -> str:
    """Return docs/mutants.md, from the outcomes on disk."""
    tried, known, found = Tried(), equivalent(), mutants([])
    verdicts = {edit: tried.verdict(edit, known) for edit in found}
    counts = Counter((room(edit.module), verdict) for edit, verdict in verdicts.items())
    rooms = sorted({of for of, _ in counts})
    total = {verdict: sum(counts[of, verdict] for of in rooms) for verdict in VERDICTS}
    about = {name: version(name) for name in ("torch", "pytest")} | {"python": platform.python_version()}
    share = total["caught"] / (total["caught"] + total["missed"])
    numbers = {"n": len(found), "written": len(_apart(_by_hand)), "share": share}
    text = INTRODUCTION.format(**numbers, **about)
    for of, each in {**{of: [counts[of, v] for v in VERDICTS] for of in rooms}, "all": [*total.values()]}.items():
        text += f"| {of} | {sum(each)} | {' | '.join(map(str, each))} |\n"
    text += "\n## Missed\n\n| module | was | is |\n|---|---|---|\n"
    lost = [edit for edit in found if verdicts[edit] == "missed"]
    return text + "".join(f"| {each.module} | {as_code(each.old)} | {as_code(each.new)} |\n" for each in lost)


def measure(files: Sequence[str]) -> None:
    """Measure the tests of these files, or of all."""
    every = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py"))

    def work(trials: Trials) -> None:
        for file in files or every:
            trials.fork(lambda file=file: _measure(file), 3600)

    (MEMORY / "calls").mkdir(parents=True, exist_ok=True)
    in_a_copy(files or every, work)


def _measure(file: str) -> int:
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        os.environ["US3L_CALLS"] = folder
        code = pytest.main(["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "calls", file])
        shutil.move(Path(folder, "calls.json"), MEMORY / "calls" / f"{file.replace('/', '.')}.json")
    print(f"{file}: {'all pass' if code == 0 else code}", file=sys.__stdout__, flush=True)
    return int(code)


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
