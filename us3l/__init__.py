"""Universally slimmable self-supervised networks: US3L (CVPR 2023) and its pipeline.

`us3l.load` gives a network to run, `us3l.widths` the widths that there are.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Import what runs networks when it is first asked for: the command line starts without PyTorch.

    By its name, since an import statement would make it code of every stage.
    """
    if name not in ("load", "widths"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("us3l.deployment.loading"), name)
