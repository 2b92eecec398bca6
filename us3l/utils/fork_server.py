"""A fork server: the jobs of a workflow start as forks of one process, which has imported PyTorch.

A workflow starts a process for each job, and most of a small job is the import of PyTorch. The server imports no module
of this package that computes: each job reads them anew, so that the code whose hash it records is the code that it ran.
"""

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from us3l.utils import process
from us3l.utils.errors import ENDING

ADDRESS = "US3L_FORK_SERVER"  # the environment variable with the path of the server's socket; empty: start none
PRELOADED = ("torch", "safetensors.torch", "pydantic", "typer", "rich.console", "yaml")
END_OF_MESSAGE = b"\n"


def start() -> None:
    """Start a server that this process's jobs find by their environment, and that ends with this process.

    Nothing happens if there is one, or where forks of PyTorch are not safe: outside Linux.
    """
    if ADDRESS in os.environ or sys.platform != "linux":
        return
    alive, _ = os.pipe()  # no process inherits the other end, which closes with this process
    command = [sys.executable, "-P", "-m", "us3l.utils.fork_server"]
    server = subprocess.Popen(command, stdin=alive, stdout=subprocess.PIPE, start_new_session=True)
    os.close(alive)
    assert server.stdout
    with server.stdout:
        os.environ[ADDRESS] = server.stdout.readline().decode().strip()


def run(arguments: list[str]) -> int | None:
    """Run a command line of us3l in a fork, and return its exit code; None where no server answers.

    SIGTERM, SIGINT and SIGHUP are passed on to the fork, which ends with this process.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ.get(ADDRESS, ""))
    except OSError:
        return None
    socket.send_fds(connection, [END_OF_MESSAGE], [0, 1, 2])
    connection.sendall(json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + END_OF_MESSAGE)
    with connection.makefile(encoding="utf-8") as answers:
        if not (answer := answers.readline()):  # no memory for a fork
            return None
        pid = int(answer)
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda received, _: _pass_on(pid, received))
        code = answers.readline()
    if not code:
        print("us3l: the process was killed; the machine may lack memory", file=sys.stderr)
    return int(code or 1)


def _pass_on(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _serve() -> None:
    """Fork a process for each connection, until standard input ends."""
    with tempfile.TemporaryDirectory(prefix="us3l-") as folder, socket.socket(socket.AF_UNIX) as listening:
        address = Path(folder, "socket")
        listening.bind(str(address))
        listening.listen(100)
        os.write(1, f"{address}\n".encode())
        os.dup2(2, 1)
        for name in PRELOADED:
            import_module(name)
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(listening, selectors.EVENT_READ)
            while not any(key.fileobj == 0 for key, _ in selector.select()):
                with listening.accept()[0] as connection, suppress(OSError):  # it broke off, or there is no memory
                    _, files, _, _ = socket.recv_fds(connection, 1, 3)
                    try:
                        is_job = os.fork() == 0
                        if is_job:
                            listening.close()
                            selector.close()
                            _become_the_job(connection, files)
                    finally:
                        if is_job:
                            os._exit(1)  # the folder that this block removes at its end is the server's
                        for file in files:
                            os.close(file)


def _become_the_job(connection: socket.socket, files: list[int]) -> NoReturn:
    """Run what the connection asks for as a process of its own would, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    with connection.makefile(encoding="utf-8") as request:
        arguments, folder, environment = json.loads(request.readline())
    sys.argv = ["us3l", *arguments]
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if name != ADDRESS})
    process.set_up()
    code = _run_command_line()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"{code}\n".encode())
    os._exit(code)


def _end_with(connection: socket.socket) -> None:
    """Kill this process once the one that asked for it is gone."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _run_command_line() -> int:
    """Run the command line of `sys.argv`, and return the exit code that Python would exit with."""
    try:
        import_module("us3l.cli").main()  # a program that this starts, and no part of it
    except SystemExit as end:
        if isinstance(end.code, int | None):
            return (end.code or 0) & 255
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
