"""Two processes that have imported what starts slowly, one of them us3l, too: others are forked from them.

FOLDER, their argument, gets the sockets at which they are asked: `tested` for the package under test, and `other`.
"""

import atexit
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
from calls import record_fork
from fork_program import SHORT_PROBES

PRELOADED = (
    *("dvc.cli.parser", "dvc.data_cloud", "dvc.dirs", "dvc.repo.artifacts", "dvc.repo.datasets", "dvc.repo.index"),
    *("dvc.repo.metrics", "dvc.repo.open_repo", "dvc.repo.params", "dvc.repo.plots", "dvc.repo.stage", "dvc.rwlock"),
    *("dvc.utils.strictyaml", "dvc_data.hashfile.status", "dulwich.ignore", "dulwich.worktree", "flufl.lock"),
    *("pandas", "pandas.io.formats.style", "pydantic", "pyparsing", "rich.console", "ruamel.yaml", "safetensors.torch"),
    *("scmrepo.git", "scmrepo.noscm", "sklearn.datasets"),
    *("snakemake.api", "snakemake.benchmark", "snakemake.cli", "snakemake.profiles", "snakemake.report.html_reporter"),
    *("requests", "smart_open", "snakemake.storage", "torch", "torchvision", "typer", "yaml"),
)
ROOT = str(Path(__file__).parent.parent.parent)
SLOW = ("us3l.models.ghost_batch_norm_triton",)
READ = selectors.EVENT_READ
os.fsync = lambda file: None  # no test's machine loses its power


def listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(100)
    return listening


def import_package() -> None:
    """Import every module of the package under test and what shortens its probes, and read the code of its stages."""
    sys.path.insert(1, ROOT)
    package = importlib.import_module("us3l")
    for module in pkgutil.walk_packages(package.__path__, "us3l."):
        if not module.name.endswith("__main__") and module.name not in SLOW:
            importlib.import_module(module.name)
    code = importlib.import_module("us3l.pipeline.code")
    for stage in code.STAGES:
        code.code(stage)  # keeps what it has read
    importlib.import_module("short_probes")
    sys.path.remove(ROOT)


def serve(folder: Path, listening: socket.socket) -> list[str]:
    """Fork until standard input ends, and exit; return in each forked process, with its command."""
    selector = selectors.DefaultSelector()
    selector.register(0, READ)
    selector.register(listening, READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                shutil.rmtree(folder, ignore_errors=True)  # by both
                os._exit(0)
            if key.fileobj is not listening:
                attend(selector, key)
                continue
            connection, _ = listening.accept()
            _, files, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile() as lines:
                command, cwd, environment = json.loads(lines.readline())
            pid = os.fork()
            if pid == 0:
                close_all(selector)
                become(folder, command, cwd, environment, files)
                return command
            for file in files:
                os.close(file)
            send(connection, pid)
            end = os.pidfd_open(pid)
            selector.register(end, READ, connection)
            selector.register(connection, READ, end)


def attend(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Tell of the end of a process, or kill the one whose connection has closed."""
    if key.fd not in selector.get_map():
        return
    if isinstance(key.fileobj, socket.socket):
        signal.pidfd_send_signal(key.data, signal.SIGKILL)
        selector.unregister(key.fileobj)
        return
    ended = os.waitid(os.P_PIDFD, key.fd, os.WEXITED)
    assert ended
    send(key.data, ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)
    for each in (key.fileobj, key.data):
        with suppress(KeyError):
            selector.unregister(each)
    os.close(key.fd)
    key.data.close()


def send(connection: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):
        connection.sendall(number.to_bytes(8, "little", signed=True))


def close_all(selector: selectors.BaseSelector) -> None:
    """Close the server's files in a forked process."""
    for key in list(selector.get_map().values()):
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.close()
        elif key.fd:
            os.close(key.fd)
    selector.close()


def become(folder: Path, command: list[str], cwd: str, environment: dict[str, str], files: list[int]) -> None:
    """Make this process what a new interpreter would be that runs a command."""
    os.setsid()
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    programs = folder / "bin"
    if str(programs) in environment.get("PATH", "").split(os.pathsep):
        sys.executable = str(programs / "python")
    first = cwd if command[0] == "-m" else str(programs)
    sys.path[:1] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    importlib.invalidate_caches()
    if SHORT_PROBES in environment and "short_probes" in sys.modules:  # which `import_package` imports
        sys.modules["short_probes"].shorten_probes(pytest.MonkeyPatch())
    record_fork()


def run(command: list[str]) -> None:
    """Run a module, or a program as pip installs it."""
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        sys.exit(importlib.import_module(f"{command[0]}.cli").main())


def leave(code: object) -> NoReturn:
    """Exit as the interpreter does, but leave it to the kernel to take hundreds of modules apart: 0.3 s."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 255 if isinstance(code, int | None) else 1)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("snakemake.cli").get_argument_parser()  # finds Snakemake's plugins, which it keeps
    folder = Path(sys.argv[1])
    sockets = {name: listen(folder / name) for name in ("tested", "other")}
    print("ready", flush=True)
    mine = "other" if os.fork() else "tested"
    if mine == "tested":
        import_package()
    inspect.getmodule(inspect.currentframe())  # fills its cache of the files of modules, for which pydantic asks it
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1
    gc.collect()
    gc.freeze()
    listening = sockets.pop(mine)
    for others in sockets.values():
        others.close()
    command = serve(folder, listening)
    try:
        run(command)
    except SystemExit as end:
        leave(end.code)
    leave(None)
