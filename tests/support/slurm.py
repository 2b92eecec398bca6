"""A Slurm of its own on loopback: munge, slurmctld, and a slurmd for each node, with GPUs that are none.

All of it lives in namespaces of its own: its configuration lies over /etc/slurm for its daemons and their jobs alone,
and none of these outlives the process that started them. Others find it by SLURM_CONF. Several can run side by side.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from waiting import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
CONFIGURATION = """
ClusterName=us3l
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
KillWait=5
OverTimeLimit=0
MinJobAge=300
MaxArraySize=2001
SlurmdParameters=config_overrides
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=100
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=32 RealMemory=64000 Gres=gpu:{gpus}"
START = """
set -e
mount --bind {folder}/etc /etc/slurm
munged --force --key-file={folder}/key --socket={folder}/munge.socket --pid-file={folder}/munged.pid \
  --log-file={folder}/munged.log --seed-file={folder}/munge.seed
slurmctld -c
for node in {nodes}; do slurmd -N $node; done
read end || true
"""


@dataclass(frozen=True)
class Slurm:
    """A Slurm that runs; `environment` leads its clients to it."""

    folder: Path
    environment: Mapping[str, str]

    def call(self, *command: str) -> str:
        """Run a client of Slurm that must not fail; what it printed."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self) -> dict[str, dict[str, str]]:
        """What `scontrol show job` tells of each job, by its id."""
        texts = self.call("scontrol", "--details", "--oneliner", "show", "job").splitlines()
        found = [dict(re.findall(r"(\S+?)=(\S*)", text)) for text in texts if text.startswith("JobId=")]
        return {job["JobId"]: job for job in found}


def why_not() -> str | None:
    """Why no Slurm can be started here."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}; apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "only root can start a Slurm"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "true"]
    return None if subprocess.run(command, capture_output=True).returncode == 0 else "no namespaces here (unshare)"


@contextmanager
def running_slurm(gpus: Mapping[str, int], more: str = "") -> Iterator[Slurm]:
    """Start Slurm with the numbers of GPUs of its nodes by their names, and end it and its jobs with the block.

    `more` are lines of slurm.conf. Skips the test where it cannot be started.
    """
    if reason := why_not():
        pytest.skip(reason)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="slurm-")))
        environment = {"SLURM_CONF": str(folder / "etc/slurm.conf")}
        _configure(folder, gpus, more)
        script = START.format(folder=folder, nodes=" ".join(gpus))
        daemons = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
            env={name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
            | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            stdin=subprocess.PIPE,  # whose end is theirs
            stdout=(folder / "start.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        stack.callback(daemons.wait)
        assert daemons.stdin
        stack.callback(daemons.stdin.close)
        slurm = Slurm(folder, environment)
        until(lambda: daemons.poll() is not None or _is_idle(slurm, len(gpus)), "an idle node")
        assert daemons.poll() is None, (folder / "start.log").read_text()
        yield slurm


def _configure(folder: Path, gpus: Mapping[str, int], more: str) -> None:
    for name in ("etc", "state", "devices", *gpus):
        (folder / name).mkdir()
    port, *ports = _free_ports(1 + len(gpus))
    nodes = [NODE.format(name=name, port=port, gpus=gpus[name]) for name, port in zip(gpus, ports, strict=True)]
    configuration = CONFIGURATION.format(folder=folder, port=port)
    (folder / "etc/slurm.conf").write_text("\n".join([configuration, *nodes, more, ""]))
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    lines = []
    for name, count in gpus.items():
        for number in range(count):  # Slurm takes nothing but devices
            (folder / f"devices/{name}-nvidia{number}").symlink_to("/dev/null")
        lines.append(f"NodeName={name} Name=gpu File={folder}/devices/{name}-nvidia[0-{count - 1}]\n")
    (folder / "etc/gres.conf").write_text("".join(lines))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _is_idle(slurm: Slurm, nodes: int) -> bool:
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    done = subprocess.run(command, env=os.environ | slurm.environment, capture_output=True, text=True)
    return done.stdout.split() == ["idle"] * nodes
