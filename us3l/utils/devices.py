"""The device that a command computes on, with a lease on its GPUs."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from us3l.utils.distributed import choose_device
from us3l.utils.errors import UserError
from us3l.utils.gpus import lease, lock_folder, slurm_job, visible_gpus
from us3l.utils.memory import keep_freed_memory

# What `torch.cpu.get_capabilities` calls instructions for products of bfloat16, on x86 and on ARM.
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


@contextmanager
def leased_device(name: str, gpus: int, threads: int) -> Iterator["torch.device"]:
    """Yield the device to compute on, and hold a lease on `gpus` GPUs, or on all where there are fewer.

    Raises UserError where the block runs out of GPU memory, and where a Slurm job has fewer GPUs.
    """
    visible, wanted = visible_gpus(), 0 if name == "cpu" else gpus
    if slurm_job():
        _require_granted(wanted, len(visible))
    with lease(min(wanted, len(visible)), visible, lock_folder()):
        if slurm_job():
            _require_seen(wanted)
        torch.set_num_threads(threads)
        keep_freed_memory()
        try:
            yield choose_device(name, gpus)
        except torch.cuda.OutOfMemoryError as error:
            what = "out of GPU memory: take fewer shards_at_once, a smaller batch.size, more gpus or precision bfloat16"
            raise UserError(what) from error


def _require_granted(gpus: int, granted: int) -> None:
    if granted < gpus:
        raise UserError(
            f"Slurm job {slurm_job()} has {granted} of the {gpus} GPUs asked for: submit it with --gpus={gpus}, "
            f"or give us3l --gpus {granted}"
        )


def _require_seen(gpus: int) -> None:
    if torch.cuda.device_count() < gpus:
        raise UserError(
            f"PyTorch sees {torch.cuda.device_count()} of the {gpus} GPUs that Slurm job {slurm_job()} has on "
            f"{platform.node()}: mend the driver or PyTorch there, or keep jobs off with sbatch --exclude"
        )


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies in bfloat16 itself; a CPU without instructions for it emulates it, slowly."""
    if device.type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in CPU_BFLOAT16)
