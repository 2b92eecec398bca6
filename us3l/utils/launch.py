"""Starts the processes of a training: an agent of torchrun starts those of a node, and srun an agent on each node.

Agents of several nodes meet at an endpoint, HOST:PORT, where that of rank 0 listens.
"""

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from us3l.utils.errors import UserError
from us3l.utils.gpus import slurm_job

if TYPE_CHECKING:
    import torch

JOIN = 300  # seconds that the agents wait for each other
PORTS = range(20_000, 30_000)  # above those of services, below those that Linux gives to connections


def process_count(device: "torch.device", shards: int, nodes: int) -> int:
    """Return the number of processes to start on each node: one per GPU, as far as those of all divide the shards.

    It is 1 on the CPU and inside `torchrun`. Raises UserError where the nodes do not divide the shards.
    """
    import torch

    if shards % nodes:
        raise UserError(f"--nodes {nodes}: does not divide the batch's shards, {shards}")
    if "WORLD_SIZE" in os.environ or device.type == "cpu":
        return 1
    return max(count for count in range(1, torch.cuda.device_count() + 1) if shards % (nodes * count) == 0)


def launch(count: int, run_id: str) -> None:
    """Run this same command in `count` processes here, and exit with the code of the first that fails.

    Raises UserError where a signal ended one.
    """
    _launch(1, count, run_id, "c10d", "localhost:0", {})


def launch_node(count: int, run_id: str, nodes: int, rank: int, endpoint: str) -> None:
    """Do as `launch` on one of several nodes; the processes of all of them work together.

    rank: of this node, below `nodes`. Raises UserError where the nodes do not meet at the endpoint, too.
    """
    from torch.distributed import DistError

    host, _, port = endpoint.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UserError(f"--rdzv-endpoint {endpoint}: must be HOST:PORT, a free port of the node of rank 0")
    if rank >= nodes:
        raise UserError(f"--node-rank {rank}: must be below the {nodes} nodes")
    try:
        # With c10d each agent would ask that of rank 0 for others that join, and for ever where it has fallen silent.
        _launch(nodes, count, run_id, "static", endpoint, {"rank": rank, "timeout": JOIN})
    except DistError as error:
        raise UserError(
            f"{endpoint}: {nodes} nodes did not meet here within {JOIN} seconds ({str(error).splitlines()[0]}); start "
            "the same command on each of them, with another --node-rank"
        ) from None


def _launch(nodes: int, count: int, run_id: str, backend: str, endpoint: str, options: dict[str, int]) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for told_here in ("agent.server.api", "multiprocessing.api"):
        logging.getLogger(f"torch.distributed.elastic.{told_here}").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        nodes,
        nodes,
        count,
        run_id=run_id,
        rdzv_backend=backend,
        rdzv_endpoint=endpoint,
        rdzv_configs=options,
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "us3l", *sys.argv[1:])
    except ChildFailedError as failure:
        code = failure.get_first_failure()[1].exitcode
        if code >= 0:
            sys.exit(code)
        raise UserError(
            f"{signal.Signals(-code).name} ended a process of this training, as where memory runs out; start the "
            "training again, and it goes on from the last saved step"
        ) from None
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)


def srun(nodes: int, gpus: int, threads: int) -> NoReturn:
    """Become `srun`, which runs this same command once on each node of this Slurm job, with an endpoint.

    Slurm tells each node its rank, in SLURM_NODEID. gpus: those of a node; threads: those of a process.
    Raises UserError outside a Slurm job of so many nodes.
    """
    job = slurm_job()
    if job is None:
        raise UserError(
            f"--nodes {nodes}: this is no Slurm job; start the same command on each node by hand, --node-rank from "
            "0 and --rdzv-endpoint HOST:PORT, a free port of the node of rank 0"
        )
    hosts = _hosts(job)
    if len(hosts) != nodes:
        raise UserError(f"--nodes {nodes}: Slurm job {job} has {len(hosts)}; submit it with --nodes={nodes}")
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=1"]
    options += [f"--gpus-per-node={gpus}", f"--cpus-per-gpu={threads}"] if gpus else [f"--cpus-per-task={threads}"]
    endpoint = f"{hosts[0]}:{PORTS[int(job) % len(PORTS)]}"
    command = [sys.executable, "-m", "us3l", *sys.argv[1:], "--rdzv-endpoint", endpoint]
    os.execvp("srun", ["srun", *options, *command])


def _hosts(job: str) -> list[str]:
    """Return the names of a Slurm job's nodes, the first one first."""
    nodes = _ask("squeue", "--noheader", f"--jobs={job}", "--format=%N")
    return _ask("scontrol", "show", "hostnames", nodes).split()


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; load the module of Slurm in the job") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"{' '.join(command)}: {error.stderr.strip()}; mend this, and submit the job again") from None
    return done.stdout.strip()
