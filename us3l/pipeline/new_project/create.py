"""`us3l init`: a project in a folder of its own, ready for Snakemake and DVC."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from us3l.params.json_schema import params_schema_text
from us3l.params.reading import load
from us3l.pipeline.dvc_file import write_dvc_file
from us3l.pipeline.new_project.shipped import shipped
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.utils.errors import UserError
from us3l.utils.extras import require_extra

TEMPLATES = Path(__file__).parent / "templates"
PROFILES = ("profiles/default/profile.yaml", "profiles/default/report.css", "profiles/slurm/profile.yaml")
SHIPPED = (".gitignore", ".dvcignore", *PROFILES)


def create(folder: Path, images: Path | None) -> None:
    """Write a project that trains on a folder of images, or on the digits; start git and DVC where they are missing.

    Raises UserError, before anything is written, where the folder holds something or the images cannot be used.
    """
    _require_empty(folder, images)
    with TemporaryDirectory() as draft:
        _write_files(Path(draft), _params(images, folder))
        if images is not None and images.resolve().is_relative_to(folder.resolve()):
            _ignore(Path(draft), images.resolve().relative_to(folder.resolve()))
        with chdir(draft):
            plan = Plan(load(Path("params.yaml")))
            write_dvc_file(plan)
        _copy_files(Path(draft), folder)
    print(f"{folder}: a project of {len(jobs(plan, plan.build))} jobs, which README.md explains")
    for sentence in _start_git_and_dvc(folder):
        print(f"{folder}: {sentence}")


def _require_empty(folder: Path, images: Path | None) -> None:
    """Raise UserError where a folder holds more than the images, and hidden files that the project does not have."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a new or an empty folder")
    if images is not None and folder.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{folder}: lies in the folder of the images, {images}; name one outside")
    present = folder.iterdir() if folder.is_dir() else ()
    for path in sorted(present, key=lambda path: (path.name.startswith("."), path.name)):
        has_images = images is not None and images.resolve().is_relative_to(path.resolve())
        is_of_tools = path.name.startswith(".") and path.name not in SHIPPED
        if not (has_images or is_of_tools or _is_of_dvc(path)):
            raise UserError(f"{path}: is there already; name a new or an empty folder, or move this away")


def _is_of_dvc(path: Path) -> bool:
    """Tell whether a file is the .dvcignore of `dvc init`, which ignores nothing."""
    return path.name == ".dvcignore" and all(
        line.startswith("#") for line in path.read_text(encoding="utf-8").splitlines()
    )


def _params(images: Path | None, folder: Path) -> str:
    if images is None:
        return (TEMPLATES / "digits.yaml").read_text(encoding="utf-8")
    require_extra("train", "us3l init --images")
    from us3l.pipeline.new_project.image_params import image_params

    return image_params(images, folder, TEMPLATES / "images.yaml")


def _write_files(folder: Path, params: str) -> None:
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    (folder / "params.schema.json").write_text(params_schema_text(), encoding="utf-8")
    for name in ("README.md", "Snakefile"):
        shutil.copyfile(TEMPLATES / name, folder / name)
    for name in SHIPPED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shipped(name), folder / name)


def _ignore(folder: Path, images: Path) -> None:
    """Have git and DVC ignore the images in a project's folder."""
    for name in (".gitignore", ".dvcignore"):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(f"\n# The images, whose SHA-256 are in the prepared data set\n/{images}/\n")


def _copy_files(draft: Path, folder: Path) -> None:
    try:
        for path in sorted(draft.rglob("*")):
            target = folder / path.relative_to(draft)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; name another folder") from None


def _start_git_and_dvc(folder: Path) -> Iterator[str]:
    """Run `git init` and `dvc init` where they have not been run; yield what was done, or is left to do."""
    if shutil.which("git") is None:
        yield "git is not installed; once it is, run `git init` and `dvc init` here"
        return
    if _top_of_git(folder) is None:
        yield _run("git init", ["git", "init", "--quiet"], folder)
    if (folder / ".dvc").is_dir():
        return
    below = [] if _top_of_git(folder) == folder.resolve() else ["--subdir"]
    name = " ".join(["dvc init", *below])
    if find_spec("dvc") is None:
        yield f"DVC is not installed; pip install 'us3l[workflow]', then run `{name}` here"
    else:
        yield _run(name, [sys.executable, "-m", "dvc", "init", "--quiet", *below], folder)


def _top_of_git(folder: Path) -> Path | None:
    command = ["git", "rev-parse", "--show-toplevel"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    return None if done.returncode else Path(done.stdout.strip())


def _run(name: str, command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    output = " ".join(done.stdout.split())
    return f"`{name}` failed, so mend this and run it again here: {output}" if done.returncode else f"ran `{name}`"
