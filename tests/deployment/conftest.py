import shutil
from pathlib import Path

import pytest
import shipped


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose untrained network is calibrated and evaluated; tests copy it."""
    return shipped.make(tmp_path_factory.mktemp("finished"), shipped.content()).folder


@pytest.fixture
def project(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project, which is the current directory."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path, dirs_exist_ok=True))
    return tmp_path
