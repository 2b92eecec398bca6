"""The extras of pyproject.toml: packages that only some commands need, and the sentence where one is missing."""

import sys
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

from us3l.utils.errors import UserError

PACKAGES = {
    "train": ("jinja2", "pandas", "pooch", "scikit-learn", "scipy", "tabulate", "torchvision"),
    "workflow": ("dvc", "snakemake"),
    "remotes": ("dvc-s3", "dvc-ssh"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "figures": ("matplotlib",),
    "tensorboard": ("tensorboard",),
    "dvclive": ("dvclive",),
}
MODULES = {
    "scikit-learn": "sklearn",
    "dvc-s3": "dvc_s3",
    "dvc-ssh": "dvc_ssh",
}  # the modules of packages that are imported by another name


def require_extra(extra: str, needed_by: str) -> None:
    """Raise UserError where a package of an extra is missing. needed_by: the command, or what it was asked for."""
    missing = [package for package in PACKAGES[extra] if find_spec(MODULES.get(package, package)) is None]
    if missing:
        *others, last = missing
        packages = f"{', '.join(others)} and {last}" if others else last
        raise UserError(f"{needed_by} needs {packages}: pip install 'us3l[{extra}]'")


def needs(extra: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a command of the command line end in `require_extra`'s sentence; its --help needs no extra."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def checked(*arguments: Any, **options: Any) -> None:
            require_extra(extra, " ".join(["us3l", *sys.argv[1:2]]))
            command(*arguments, **options)

        return checked

    return decorate
