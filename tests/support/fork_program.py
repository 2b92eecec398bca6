"""Ask the fork server for a process; as a script, the programs that forked processes find first on their PATH.

SERVER PROGRAM ARGUMENT...: run as `us3l`, `snakemake`, `dvc` or `python` would. It imports little, for it starts often.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = str(Path(__file__).parent.parent.parent)
PROGRAMS = ("us3l", "snakemake", "dvc")
MODULES = (*PROGRAMS, "benchmarks", "pytest")  # that `python -m` forks, too
SHORT_PROBES = "US3L_TEST_SHORT_PROBES"  # set for commands of which no test compares what their probes find
FORKED_RANKS = "US3L_TEST_FORKED_RANKS"  # set for ranks that no test signals or tells apart


def request(
    server: str, command: Sequence[str], folder: str, environment: Mapping[str, str], files: Sequence[int]
) -> tuple[socket.socket, int]:
    """Have a command forked, a program of PROGRAMS or `-m` and a module; the connection to it, and its process id.

    The connection yields its exit code at its end; to close it is to kill it. `files` are its three standard files. A
    command that runs the package under test, and no other us3l, is forked from a process that has imported it.
    """
    connection = socket.socket(socket.AF_UNIX)
    is_under_test = environment.get("PYTHONPATH") == ROOT
    connection.connect(os.path.join(server, "tested" if is_under_test else "other"))
    socket.send_fds(connection, [b"\n"], files)
    connection.sendall(json.dumps([list(command), folder, dict(environment)]).encode() + b"\n")
    return connection, read_number(connection)


def read_number(connection: socket.socket) -> int:
    """Read a process id or an exit code, minus the number of a signal."""
    return int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little", signed=True)


def _pass_on(pid: int, number: int) -> None:
    """Send a signal to the forked process, which gets none that is sent to this one or to its group."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def main() -> None:
    """Fork what the server can fork, and execute everything else."""
    _, server, program, *arguments = sys.argv
    if program == "python":
        command = arguments[1:] if arguments[:1] == ["-u"] else arguments
    else:
        command = [program, *arguments]
    module = command[1] if command[:1] == ["-m"] else program
    # Ranks of torch.distributed are told apart by their command lines, which forked processes have not.
    if module not in MODULES or ("RANK" in os.environ and FORKED_RANKS not in os.environ):
        os.execv(sys.executable, [sys.executable, *arguments])
    connection, pid = request(server, command, os.getcwd(), os.environ, (0, 1, 2))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: _pass_on(pid, received))
    code = read_number(connection)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
