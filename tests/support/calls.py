"""The functions of the package that a test calls, in its own process and in those that it has forked.

A plugin of pytest: with US3L_CALLS, a folder, in the environment it writes `calls.json` there: the functions, each as
[path in us3l, qualified name], and for each test that passed its seconds and the numbers of those that it called.
"""

import atexit
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

FOLDER = "US3L_CALLS"
WHOSE = "US3L_CALLS_OF"  # the number of the test that a forked process belongs to
MARK = "/us3l/"

Function = tuple[str, str]
calls: set[Function] = set()
_known: set[CodeType] = set()


def _listen(frame: FrameType, event: str, argument: Any) -> None:
    code = frame.f_code
    if code not in _known:
        _known.add(code)
        _, mark, module = code.co_filename.rpartition(MARK)
        if mark:
            calls.add((module, code.co_qualname))


def listen() -> None:
    sys.settrace(_listen)
    threading.settrace(_listen)


def clear() -> None:
    calls.clear()
    _known.clear()


def record_fork() -> None:
    """Write at the end of this process, which a test has forked, what it called."""
    if folder := os.environ.get(FOLDER):
        path = Path(folder, f"{os.environ.get(WHOSE, 'none')}-{os.getpid()}.json")
        atexit.register(lambda: path.write_text(json.dumps(sorted(calls))))
        listen()


def processor_seconds() -> float:
    """Return the seconds that processors have worked for this process and for its children that have ended."""
    return sum(os.times()[:4])


class Calls:
    """Notes the calls of each test, with those of the wider fixtures that it uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, tuple[float, set[Function]]] = {}
        self.not_passed: set[str] = set()
        self.of_fixtures: dict[str, tuple[float, set[Function]]] = {}
        self.setting_up = 0.0  # seconds of wider fixtures in the present test
        self.number = 0

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.number += 1
        os.environ[WHOSE] = str(self.number)
        clear()
        start, self.setting_up = processor_seconds(), 0.0
        listen()
        yield
        own = processor_seconds() - start - self.setting_up
        wider = [self.of_fixtures[name] for name in getattr(item, "fixturenames", ()) if name in self.of_fixtures]
        seconds = own + sum(of_fixture for of_fixture, _ in wider)
        self.found[item.nodeid] = seconds, calls.union(self._forked(), *(called for _, called in wider))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            yield
            return
        before, start = set(calls), processor_seconds()
        clear()
        yield
        seconds = processor_seconds() - start
        self.setting_up += seconds
        self.of_fixtures[fixturedef.argname] = seconds, calls | self._forked()
        calls.update(before)

    def _forked(self) -> set[Function]:
        """Calls of the processes that this test has forked so far."""
        found: set[Function] = set()
        for path in self.folder.glob(f"{self.number}-*.json"):
            found |= {(module, name) for module, name in json.loads(path.read_text())}
        return found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.not_passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        passed = {test: found for test, found in self.found.items() if test not in self.not_passed}
        functions = sorted(set().union(*(called for _, called in passed.values())))
        number = {function: index for index, function in enumerate(functions)}
        tests = {
            test: [round(seconds, 3), sorted(map(number.get, called))] for test, (seconds, called) in passed.items()
        }
        (self.folder / "calls.json").write_text(json.dumps({"functions": functions, "tests": tests}))


def pytest_configure(config: pytest.Config) -> None:
    if folder := os.environ.get(FOLDER):
        config.pluginmanager.register(Calls(Path(folder)))
