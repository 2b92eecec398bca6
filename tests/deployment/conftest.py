import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import shipped
from forks import fork_server
from project import ROOT

from us3l.deployment import export as exporting


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose untrained network is calibrated and evaluated; tests copy it."""
    return shipped.make(tmp_path_factory.mktemp("finished"), shipped.content()).folder


@pytest.fixture
def project(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project, which is the current directory."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path, dirs_exist_ok=True))
    return tmp_path


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run exported folders in forks of a process that has imported PyTorch."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        arguments = ["-m", "us3l.deployment.run_exported", *command[3:]]
        process = fork_server().start(arguments, Path.cwd(), os.environ | {"PYTHONPATH": str(ROOT)})
        output, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.wait(), stderr=output)

    monkeypatch.setattr(exporting, "subprocess", SimpleNamespace(run=run))


@pytest.fixture
def new_interpreter(forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run exported folders as people do."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setattr(exporting, "subprocess", subprocess)
