"""us3l installed from a wheel, outside the clone: the project that `us3l init` makes works there."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import image_files
import pytest
import yaml
from project import ROOT

from us3l.utils.fork_server import ADDRESS


class Installed:
    """An environment of its own: us3l from its wheel, and all other packages from the environment of the tests."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.programs = folder / "bin"
        [self.packages] = folder.glob("lib/python*/site-packages")
        (self.packages / "others.pth").write_text(sysconfig.get_path("purelib"))
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "--python",
            self.programs / "python",
        ]
        subprocess.run([*pip, "install", "--no-deps", "--no-index", "--no-build-isolation", ROOT], check=True)

    def must(self, folder: Path, *command: str) -> str:
        """Run a Python module that must not fail; all that it printed."""
        kept = {name: value for name, value in os.environ.items() if name not in (ADDRESS, "PYTHONPATH")}
        path = os.pathsep.join([str(self.programs), os.environ["PATH"]])
        done = subprocess.run(
            [self.programs / "python", "-m", *command],
            cwd=folder,
            env=kept | {"PATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


def shorten(params_file: Path) -> None:
    content = yaml.safe_load(params_file.read_text())
    [run] = content["studies"]["pets"]["runs"].values()
    run |= {"backbone": "small-resnet", "epochs": 4}
    run["method"]["projector"] = {"hidden": 16, "output": 8}
    content["studies"]["pets"]["widths"] = [1.0, 0.25]
    content["protocols"]["pets-linear"]["epochs"] = 2
    content["protocols"]["pets-linear"]["optimizer"] = {"lr": 1.0}
    params_file.write_text(yaml.safe_dump(content))


def test_a_new_project_is_made_by_snakemake_and_leaves_nothing_for_dvc(installed: Installed, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for seed in range(12):
            image_files.write(tmp_path / "pets" / name / f"{seed}.png", seed, 17, 20)
    project = tmp_path / "project"
    printed = installed.must(tmp_path, "us3l", "init", "project", "--images", "pets")
    assert printed.splitlines() == [
        "project: a project of 5 jobs, which README.md explains",
        "project: ran `git init`",
        "project: ran `dvc init`",
    ]
    shorten(project / "params.yaml")
    assert "\n5 of 5 jobs to do\n" in installed.must(project, "us3l", "plan")
    stages = ("plan", "prepare", "pretrain", "calibrate_pets_w025_w100", "linear_pets_w025_w100", "table")
    planned = installed.must(project, "snakemake", "--profile", "profiles/slurm", "--dry-run")
    assert all(f"\n{stage} " in planned for stage in (*stages, "everything"))

    installed.must(project, "snakemake", "--cores", "1")
    table = project / "results/pets/tables/main.md"
    assert "US3L, one training for all widths" in table.read_text()
    made = table.stat().st_mtime_ns
    assert "\n0 of 5 jobs to do\n" in installed.must(project, "us3l", "plan")

    # DVC does not see installed code, so it looks at the plan each time, and finds nothing else to do.
    printed = installed.must(project, "dvc", "repro")
    assert [line for line in printed.splitlines() if line.startswith("Running stage")] == ["Running stage 'plan':"]
    assert table.stat().st_mtime_ns == made

    step = installed.packages / "us3l/training/step.py"
    step.write_text(step.read_text() + "\nUNUSED = 1\n")
    assert "\n4 of 5 jobs to do\n" in installed.must(project, "us3l", "plan")
    printed = installed.must(project, "dvc", "repro", "plan")
    assert "pets-pretrain@us3l" in installed.must(project, "dvc", "status")
