"""Python modules that start without importing PyTorch, Snakemake and DVC anew: a fork server and its processes."""

import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from fork_program import PROGRAMS, read_number, request

SUPPORT = Path(__file__).parent
TEMPORARY = tempfile.gettempdir()  # tests may change it for longer than the name of a socket may be


class Process:
    """A forked process, with as much of the interface of `subprocess.Popen` as tests use."""

    def __init__(self, connection: socket.socket, pid: int, stdout: IO[str]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code, or minus the number of the signal that killed it.

        Raises subprocess.TimeoutExpired when it has not ended after `timeout` seconds.
        """
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = read_number(self._connection)
            self._connection.close()
        return self.returncode

    def communicate(self) -> tuple[str, None]:
        """Wait for its end; what it printed and None, for errors come through the same pipe."""
        with self.stdout:
            output = self.stdout.read()
        self.wait()
        return output, None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts Python modules as forks of one process, which ends with this one.

    What has `programs` first on its PATH starts us3l, snakemake and dvc as forks, too.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="us3l-", dir=TEMPORARY))
        self.programs = self._folder / "bin"
        self.programs.mkdir()
        for name in (*PROGRAMS, "python"):
            command = [sys.executable, "-IS", str(SUPPORT / "fork_program.py"), str(self._folder), name]
            (self.programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            (self.programs / name).chmod(0o755)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        self._server = subprocess.Popen(
            [sys.executable, str(SUPPORT / "fork_server.py"), str(self._folder)],
            cwd="/",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._server.stdout and self._server.stdout.readline() == b"ready\n"

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Process:
        """Start a program of PROGRAMS, or `-m` and a module, in a session of its own; one pipe takes what it prints."""
        read, write = os.pipe()
        with open(os.devnull) as nothing:
            files = (nothing.fileno(), write, write)
            connection, pid = request(str(self._folder), command, str(folder), environment, files)
        os.close(write)
        return Process(connection, pid, open(read))


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()
