"""A working tree of this project under git, with stand-ins for the stages that compute, and the tools run in it."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from forks import Process, fork_server
from project import ROOT, keep_studies

from us3l.params.reading import read

COPIED = ("Snakefile", "workflow", "profiles", "dvc.yaml", "us3l", ".gitignore", ".dvcignore", ".dvc/config")
SNAKEMAKE = ("snakemake", "--cores", "2", "--quiet", "host")
REPRO = ("dvc", "repro", "--quiet")


class Checkout:
    """A working tree of the project under git, and the tools run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "runs").mkdir(exist_ok=True)
        path = os.pathsep.join([str(fork_server().programs), os.environ["PATH"]])
        self.environment = os.environ | {"PYTHONPATH": str(folder), "PATH": path}

    def start(self, *command: str) -> Process:
        return fork_server().start(command, self.folder, self.environment)

    def try_(self, *command: str) -> tuple[int, str]:
        process = self.start(*command)
        output, _ = process.communicate()
        return process.wait(), output

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def run(self, *command: str) -> str:
        code, output = self.try_(*command)
        assert code == 0, output
        return output

    def ran(self, *command: str) -> list[str]:
        """The jobs that ran, other than the table's, sorted."""
        log = self.folder / "runs" / "log"
        log.unlink(missing_ok=True)
        self.run(*command)
        return sorted(log.read_text().splitlines()) if log.exists() else []

    def pending(self) -> dict[str, int]:
        """How many jobs of each stage Snakemake would run; it prints its counts twice."""
        output = self.run("snakemake", "--cores", "1", "--dry-run", "--quiet", "rules")
        counts: Counter[str] = Counter()
        for rule, count in dict(re.findall(r"^([\w-]+) +(\d+)$", output, re.MULTILINE)).items():
            counts[rule.partition("_")[0]] += int(count)
        return {stage: count for stage, count in counts.items() if stage not in ("total", "all")}

    def dirty(self) -> set[str]:
        """The stages that DVC would run."""
        return set(re.findall(r"^([\w@-]+):$", self.run("dvc", "status"), re.MULTILINE))

    def clean(self) -> bool:
        assert self.dirty() == set()
        assert self.pending() == {}
        return True

    def edit(self, change: Callable[[Any], None]) -> None:
        path = self.folder / "params.yaml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))

    def append(self, module: str, text: str) -> None:
        with (self.folder / "us3l" / module).open("a") as file:
            file.write(text)

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "as it is")
        return self.git("rev-parse", "HEAD").strip()

    def switch(self, commit: str) -> None:
        self.git("checkout", "--quiet", commit)
        self.run("dvc", "checkout", "--quiet")


def lay_out(folder: Path) -> Checkout:
    """Write the project into a folder, with nothing made; what DVC pushes goes into `store` beside it."""
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    shutil.copytree(Path(__file__).parent / "stand_ins", folder, dirs_exist_ok=True)
    content = read(ROOT / "params.yaml")
    keep_studies(content, "digits", "digits-precision")
    content["studies"]["digits"]["figures"] = []  # stand-ins have no weights to draw
    digits = content["studies"]["digits"]
    digits["runs"] = {name: digits["runs"][name] for name in ("us3l", "us-simsiam")}
    digits["tables"]["main"]["rows"] = [{"label": name, "runs": name} for name in digits["runs"]]
    digits["seeds"], digits["widths"] = [0], [1.0, 0.25]
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    made = Checkout(folder)
    made.git("init", "--quiet")
    made.git("config", "user.name", "Tester")
    made.git("config", "user.email", "tester@example.org")
    made.run("us3l", "dvc")
    made.run("dvc", "remote", "add", "--quiet", "--default", "store", "../store")
    return made


def copy(project: Path, folder: Path) -> Checkout:
    return Checkout(shutil.copytree(project, folder, symlinks=True))
