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

SILENCE = timedelta(minutes=5)  # without an answer, after which a process is taken for lost


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
        """Sum `tensor` over all processes, in place. See `us3l.training.flat_parameters.pairwise_sum`.

        Raises UserError where one of them is lost.
        """
        with _answers():
            for group in self.groups:
                distributed.all_reduce(tensor, group=group)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process; all of them get the same answer.

        Raises UserError where one of them is lost.
        """
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag))  # a CPU tensor: gloo answers without waiting for the GPU
        with _answers():
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
    """Join the processes that `torchrun` started, or be the only one; the local rank selects the GPU.

    Raises UserError where one of them is lost.
    """
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
    with _answers():
        distributed.init_process_group(backend, timeout=SILENCE)
        rank = distributed.get_rank()
        groups = _groups(rank, size, device)
    try:
        yield World(rank, size, device, groups)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _answers() -> Iterator[None]:
    """Raise UserError where another process does not answer in the block; PyTorch raises what it does for anything."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise UserError(
            f"another process of this training has ended or is out of reach ({why}); "
            "start the training again, and it goes on from the last saved step"
        ) from error


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
            group = distributed.new_group([low, low + distance], SILENCE)  # all must call it, member or not
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
