"""A small project in a folder of its own, and the command line run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from fork_program import SHORT_PROBES
from forks import Process, fork_server

ROOT = Path(__file__).parent.parent.parent

RUN = {
    "dataset": "digits",
    "backbone": "small-resnet",
    "method": {"name": "simclr", "base_loss": "infonce", "momentum": 0.99, "projector": {"hidden": 16, "output": 8}},
    "epochs": 4,
    "batch": {"size": 32, "shards": 2},
    "optimizer": {"lr": 0.05},
    "regularizer": {"kind": "group", "strength": 5.0e-5},
    "resources": {"gpus": 0},
}


def params(**run: Any) -> dict[str, Any]:
    """The content of a params file with one study of one run, `tiny us3l`, changed by `run`."""
    views = {"normalize": {"mean": [0.3], "std": [0.4]}, "pretrain": [{"affine": {"degrees": 10.0}}] * 2}
    row = {"label": "US3L", "runs": "us3l"}
    study = {
        "seeds": [0],
        "widths": [1.0, 0.25],
        "protocol": "quick",
        "runs": {"us3l": RUN | run},
        "tables": {"main": {"title": "Tiny", "rows": [row]}},
    }
    return {
        "build": ["tiny"],
        "datasets": {"digits": {"source": {"kind": "digits", "test_fraction": 0.95}, "views": views}},
        "protocols": {"quick": {"epochs": 2, "batch_size": 256, "optimizer": {"lr": 1.0}}},
        "studies": {"tiny": study},
    }


def keep_studies(content: dict[str, Any], *names: str) -> None:
    """Take all other studies, and what only they use, out of a params file's content.

    DVC reads the file anew for each stage, and slowly.
    """
    content["studies"] = {name: content["studies"][name] for name in names}
    used = set(yaml.safe_dump(content["studies"]).split())
    for part in ("datasets", "protocols"):
        content[part] = {name: each for name, each in content[part].items() if name in used}


class Project:
    """A folder with a params file; commands run there."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.environment = {SHORT_PROBES: "1"}
        self.write(content)

    def write(self, content: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(content))

    def with_workflow(self, *more: str) -> "Project":
        for name in ("Snakefile", "workflow", "profiles", *more):
            source, target = ROOT / name, self.folder / name
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        return self

    def start(self, *command: str) -> Process:
        """Start a Python module with arguments; one CPU thread, in a process group of its own."""
        server = fork_server()
        path = os.pathsep.join([str(server.programs), os.environ["PATH"]])
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path} | self.environment
        return server.start(["-m", *command], self.folder, os.environ | environment)

    def run(self, *command: str) -> tuple[int, str]:
        """Run a Python module to its end; exit code and all that it printed."""
        process = self.start(*command)
        output, _ = process.communicate()
        return process.returncode, output

    def in_new_interpreter(self, *command: str) -> str:
        """Run a Python module that must not fail, with nothing imported; all that it printed."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | self.environment
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def must(self, *command: str) -> str:
        code, output = self.run(*command)
        assert code == 0, output
        return output
