"""One process, or many as `torchrun` sets them up in the environment; gloo carries CPU tensors, NCCL those of GPUs."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from us3l.utils.errors import UserError


@dataclass(frozen=True)
class World:
    """This process's rank, the number of processes, and the device it computes on."""

    rank: int
    size: int
    device: torch.device
    groups: tuple[distributed.ProcessGroup, ...] = ()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce_(self, tensor: Tensor) -> None:
        """Sum `tensor` over all processes, in place. See `us3l.training.flat_parameters.pairwise_sum`."""
        for group in self.groups:
            distributed.all_reduce(tensor, group=group)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process; all of them get the same answer."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag))  # a CPU tensor: gloo answers without waiting for the GPU
        distributed.all_reduce(votes)
        return bool(votes)

    def shards(self, count: int) -> range:
        """Return this process's shards of `count`. Raises UserError where the processes do not divide them."""
        if count % self.size:
            divisors = [n for n in range(1, count + 1) if count % n == 0]
            raise UserError(
                f"{self.size} processes cannot share {count} shards equally; use one of {divisors} processes"
            )
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """Join the processes that `torchrun` started, or be the only one; the local rank selects the GPU."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield World(0, 1, device)
        return
    _end_with_the_launcher()
    if device.type == "cuda":
        # A process with a lease of its own sees its one GPU only.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # The first process may have to wait until another training with the same params is done.
    distributed.init_process_group(backend, timeout=timedelta(days=7))
    try:
        yield World(distributed.get_rank(), size, device, _groups(distributed.get_rank(), size, device))
    finally:
        distributed.destroy_process_group()


def _end_with_the_launcher() -> None:
    """Let the kernel send SIGTERM once the process that started this one has died, even by SIGKILL (Linux only)."""
    if sys.platform == "linux":
        launcher = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != launcher:
            os.kill(os.getpid(), signal.SIGTERM)


def _groups(rank: int, size: int, device: torch.device) -> tuple[distributed.ProcessGroup, ...]:
    """Return the groups whose all-reduces, one after the other, sum a tensor over all processes.

    On CPUs, with a power of two of processes, pairs of neighbours, of neighbouring pairs, and so on; else all at once.
    """
    if device.type == "cuda" or size & (size - 1):
        assert distributed.group.WORLD is not None  # init_process_group has set it
        return (distributed.group.WORLD,)
    mine = []
    for distance in (1 << power for power in range(size.bit_length() - 1)):
        for low in (each for each in range(size) if not each & distance):
            group = distributed.new_group([low, low + distance])  # every process must call it, member or not
            if rank in (low, low + distance):
                mine.append(group)
    return tuple(mine)


def choose_device(name: str, gpus: int) -> torch.device:
    """Return the device named `cpu` or `cuda`; `auto` takes a GPU where one is available and `gpus` is not 0.

    Raises UserError where `cuda` is not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not (available and gpus):
        why = "PyTorch sees no GPU on this machine" if gpus else "--gpus 0 allows none"
        raise UserError(f"--device cuda: {why}; use --device cpu, or auto")
    return torch.device("cuda" if available and gpus and name != "cpu" else "cpu")


def process_count(device: torch.device, shards: int) -> int:
    """Return the number of processes to start: one per GPU, as far as they divide the shards; 1 inside `torchrun`."""
    if "WORLD_SIZE" in os.environ or device.type == "cpu":
        return 1
    return max(count for count in range(1, torch.cuda.device_count() + 1) if shards % count == 0)


def launch(count: int) -> None:
    """Run this same command in `count` processes and exit with the code of the first that fails."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        1, 1, count, run_id=str(os.getpid()), rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(config, sys.executable)("-m", "us3l", *sys.argv[1:])
    except ChildFailedError as failure:
        sys.exit(failure.get_first_failure()[1].exitcode)
