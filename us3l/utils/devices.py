"""The device that a command computes on, with a lease on the GPUs that it takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from us3l.utils.distributed import choose_device
from us3l.utils.errors import UserError
from us3l.utils.gpus import lease, lock_folder, visible_gpus


@contextmanager
def computing(name: str, gpus: int, threads: int) -> Iterator["torch.device"]:
    """Yield the device to compute on, and hold a lease on the GPUs asked for, or on as many as there are.

    Raises UserError where what is computed there does not fit into a GPU's memory.
    """
    there = visible_gpus()
    with lease(0 if name == "cpu" else min(gpus, len(there)), there, lock_folder()):
        torch.set_num_threads(threads)
        try:
            yield choose_device(name, gpus)
        except torch.cuda.OutOfMemoryError as error:
            what = "out of GPU memory: take fewer shards_at_once, a smaller batch.size, more gpus or precision bfloat16"
            raise UserError(what) from error
