"""Where this is on the PYTHONPATH, PyTorch counts the devices that Slurm has granted; it could see none of them."""

import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any


class CountGranted(MetaPathFinder):
    """Gives PyTorch another count, just before the package uses it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "us3l.utils.devices":
            import torch

            torch.cuda.device_count = lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))


sys.meta_path.insert(0, CountGranted())
