"""Nothing is lost: Snakemake, launchers and ranks that are killed or stopped at work, and the power that goes."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pod
import psutil
import pytest
from forks import Process
from project import ROOT, Project, params
from waiting import SECONDS, until

from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError

CHECKPOINT = Path("results/tiny/checkpoints/us3l/seed0.safetensors")
RECORD = Path("results/tiny/pretrain/us3l/seed0.json")
LOG = Path("logs/pretrain/tiny/us3l/seed0.log")
STOPPED = "stopped by SIGTERM; the same command continues from here"
STATE = "state.safetensors"
SNAKEMAKE = ("snakemake", "--cores", "2", "--quiet")
TRAINING = (*SNAKEMAKE, "--", str(CHECKPOINT))
PRETRAIN = ("us3l", "pretrain", "tiny", "us3l", "0", "--save-every", "0")
TWO = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *PRETRAIN)

Start = Callable[..., Process]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("undisturbed"), params(epochs=2)).with_workflow()
    made.must(*SNAKEMAKE)
    return made


@pytest.fixture
def project(tmp_path: Path, undisturbed: Project) -> Project:
    """The undisturbed one without what it made of its data."""
    results = shutil.ignore_patterns("results", "logs", "runs")
    shutil.copytree(undisturbed.folder, tmp_path / "project", ignore=results)
    made = Project(tmp_path / "project", params(epochs=2))
    return made


@pytest.fixture
def start(project: Project) -> Iterator[Start]:
    """Starts a module in the project; when the test is done, it and all that it left in the project are killed.

    Snakemake's trainings are real processes, in its process group.
    """
    started: list[Process] = []

    def start(*command: str) -> Process:
        project.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        started.append(project.start(*command))
        del project.environment["PATH"]
        return started[-1]

    yield start
    for process in inhabitants(project):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for process in started:
        process.wait()


def inhabitants(project: Project) -> list[psutil.Process]:
    """The processes that work in the project."""
    found = psutil.process_iter(["cwd"])
    return [process for process in found if process.info["cwd"] == str(project.folder)]


def ranks(project: Project) -> dict[int, psutil.Process]:
    """The processes that train in the project, launchers aside."""
    found = {}
    for process in inhabitants(project):
        with suppress(psutil.NoSuchProcess):
            if "pretrain" in process.cmdline() and TWO[0] not in process.cmdline():
                found[int(process.environ().get("RANK", 0))] = process
    return found


def until_it_logs(project: Project, text: str) -> None:
    path = project.folder / LOG
    until(lambda: path.is_file() and text in path.read_text(), text)


def saved(project: Project, since: float = 0) -> bool:
    return any(path.stat().st_mtime > since for path in project.folder.glob(f"runs/*/{STATE}"))


def start_two(project: Project, start: Start) -> tuple[Process, dict[int, psutil.Process]]:
    """Two processes in the midst of a training: their launcher, and each by its rank."""
    started = time.time()
    launcher = start(*TWO)
    until(lambda: saved(project, since=started), "a saved state")
    return launcher, ranks(project)


def same_bytes(project: Project, undisturbed: Project) -> bool:
    """Whether the checkpoint is that of the undisturbed build."""
    return (project.folder / CHECKPOINT).read_bytes() == (undisturbed.folder / CHECKPOINT).read_bytes()


# --- Snakemake ------------------------------------------------------------------------------------------------------


def kill_snakemake(project: Project, start: Start) -> psutil.Process:
    """Kill it in the midst of a training; the training, which lives on."""
    snakemake = start(*SNAKEMAKE)
    until_it_logs(project, "epoch 1/2")
    snakemake.kill()
    snakemake.wait()
    return ranks(project)[0]


def test_after_a_kill_of_snakemake_a_new_one_waits_for_the_training_that_lives_on(
    project: Project, start: Start, undisturbed: Project
) -> None:
    orphan = kill_snakemake(project, start)
    orphan.suspend()
    code, output = project.run(*SNAKEMAKE)
    assert code == 1 and "It can be removed with the --unlock argument" in output
    project.must(*SNAKEMAKE, "--unlock")
    again = start(*SNAKEMAKE)
    until_it_logs(project, "is in use by another process; waiting for it")
    assert not (project.folder / CHECKPOINT).exists()
    orphan.resume()
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert same_bytes(project, undisturbed)
    assert "level 1  holds" in project.must("us3l", "verify", "--level", "1")


def test_what_a_training_wrote_after_snakemake_was_killed_is_whole(
    project: Project, start: Start, undisturbed: Project
) -> None:
    psutil.wait_procs([kill_snakemake(project, start)], timeout=SECONDS)
    assert same_bytes(project, undisturbed)
    project.must(*SNAKEMAKE, "--unlock")
    project.must(*SNAKEMAKE)
    assert same_bytes(project, undisturbed)


def test_what_a_job_wrote_after_snakemake_was_killed_is_recorded_by_the_next_one_and_all_tools_agree(
    project: Project, start: Start, undisturbed: Project
) -> None:
    """Even where nothing else is left to do."""
    shutil.copytree(undisturbed.folder / "results", project.folder / "results")
    project.must("dvc", "init", "--no-scm", "--quiet")
    project.must("us3l", "dvc")
    table = project.folder / "results/tiny/tables/main.md"
    table.unlink()
    snakemake = start(*SNAKEMAKE)
    until(lambda: suspended(project, "table"), "a table in the making")
    snakemake.kill()
    snakemake.wait()
    orphans = inhabitants(project)
    for process in orphans:
        process.resume()
    assert psutil.wait_procs(orphans, timeout=SECONDS)[1] == []
    assert table.is_file()
    project.must(*SNAKEMAKE, "--unlock")
    assert "\n0 of 5 jobs to do\n" in project.must("us3l", "plan")
    assert "tiny-table@main" in project.must("dvc", "status")
    assert planned(project) == {"plan", "all"}
    project.must(*SNAKEMAKE)
    assert planned(project) == set()
    assert project.must("dvc", "status") == "plan:\n\talways changed\n"  # DVC sees no code of the package here


def suspended(project: Project, command: str) -> bool:
    """Suspend the processes of a command in the project, once there are some."""
    found = [process for process in inhabitants(project) if process.cmdline()[2:3] == [command]]
    for process in found:
        process.suspend()
    return found != []


def planned(project: Project) -> set[str]:
    """The rules that a dry run lists."""
    output = project.must("snakemake", "--cores", "2", "--dry-run", "--quiet", "rules")
    return set(re.findall(r"^([\w-]+) +\d+$", output, re.MULTILINE)) - {"total"}


def require_lock(project: Project) -> None:
    """While one Snakemake trains, another is refused."""
    [training] = ranks(project).values()
    training.suspend()
    code, output = project.run(*TRAINING)
    assert code == 1 and "Directory cannot be locked" in output
    training.resume()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_snakemake_and_all_that_it_started_saves_the_training_and_the_same_command_continues(
    project: Project, start: Start, undisturbed: Project, number: signal.Signals
) -> None:
    snakemake = start(*TRAINING)
    until_it_logs(project, "epoch 1/2")
    if number == signal.SIGINT:
        require_lock(project)
    os.killpg(snakemake.pid, number)
    output, _ = snakemake.communicate()
    assert snakemake.returncode != 0, output
    until_it_logs(project, f"stopped by {number.name}; the same command continues from here")
    assert saved(project)
    assert not (project.folder / CHECKPOINT).exists() and not (project.folder / RECORD).exists()
    project.must(*TRAINING)
    former, _, latter = (project.folder / LOG).read_text().rpartition("us3l pretrain tiny us3l 0, ")
    assert "epoch 1/2" in former and "epoch 1/2" not in latter
    assert same_bytes(project, undisturbed)


@pytest.mark.skipif(shutil.which("tini") is None, reason="needs tini, which apt-get installs")
def test_a_pod_that_is_stopped_saves_the_training_and_the_next_one_goes_on(
    project: Project, undisturbed: Project
) -> None:
    command = pod.command(str(CHECKPOINT), CORES=2, MEMORY_MB=4000)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    container = subprocess.Popen(command, cwd=project.folder, env=environment, stderr=subprocess.DEVNULL)
    until_it_logs(project, "epoch 1/2")
    container.terminate()
    assert container.wait(SECONDS) == 1
    assert STOPPED in (project.folder / LOG).read_text()
    assert saved(project) and not (project.folder / CHECKPOINT).exists()
    project.must(*command[command.index("snakemake") :])
    assert "epoch 1/2" not in (project.folder / LOG).read_text().partition(STOPPED)[2]
    assert same_bytes(project, undisturbed)


# --- several processes ----------------------------------------------------------------------------------------------


def test_a_kill_of_the_launcher_ends_its_processes_which_save(
    project: Project, start: Start, undisturbed: Project
) -> None:
    launcher = start(*TWO[:-2])
    assert any("epoch 1/2" in line for line in launcher.stdout)
    both = ranks(project)
    launcher.kill()
    assert psutil.wait_procs(both.values(), timeout=SECONDS)[1] == []
    assert saved(project) and not (project.folder / CHECKPOINT).exists()
    assert "epoch 1/2" not in project.must(*TWO)
    assert same_bytes(project, undisturbed)


def test_a_kill_of_one_process_ends_all_and_the_same_command_continues(
    project: Project, start: Start, undisturbed: Project
) -> None:
    for victim in (1, 0):
        launcher, both = start_two(project, start)
        both[victim].kill()
        assert launcher.wait(timeout=SECONDS) == 1
        assert psutil.wait_procs(both.values(), timeout=SECONDS)[1] == []
        assert not (project.folder / CHECKPOINT).exists()
    project.must(*TWO)
    assert same_bytes(project, undisturbed)


# --- the power ------------------------------------------------------------------------------------------------------

CUT = """
import os, signal, sys
from pathlib import Path
from us3l.cli import main

file, count = sys.argv.pop(1), int(sys.argv.pop(1))
replace = Path.replace

def cut(self, target):
    global count
    count -= Path(target).name == file
    return replace(self, target) if count else os.kill(os.getpid(), signal.SIGKILL)

Path.replace = cut
main()
"""


def test_a_power_cut_before_a_file_is_renamed_leaves_the_old_one_whole(project: Project, undisturbed: Project) -> None:
    """One cut after the other: at the first and at another state, at the checkpoint over an old one, at the record."""
    (project.folder / CHECKPOINT).parent.mkdir(parents=True)
    (project.folder / CHECKPOINT).write_text("old")
    (project.folder / "cut.py").write_text(CUT)
    for file, count in ((STATE, 1), (STATE, 3), (CHECKPOINT.name, 1), (RECORD.name, 1)):
        code, output = project.run("cut", file, str(count), *PRETRAIN[1:])
        assert code == -signal.SIGKILL, output
        assert (
            len(list((project.folder / "results").rglob("*.tmp"))) + len(list(project.folder.glob("runs/*/*.tmp"))) == 1
        )
        assert saved(project) == ((file, count) != (STATE, 1))
        assert (project.folder / CHECKPOINT).read_bytes() == b"old" or file == RECORD.name
        assert not (project.folder / RECORD).exists()
    project.must(*PRETRAIN)
    assert same_bytes(project, undisturbed)
    assert not any(project.folder.glob("runs/*")) and not any(project.folder.rglob("*.tmp"))


@pytest.mark.parametrize("command", ["prepare digits", "calibrate tiny us3l 0", "linear tiny us3l 0"])
def test_a_stage_by_hand_beside_another_of_the_same_files_leaves_whole_ones(undisturbed: Project, command: str) -> None:
    """Both write the same bytes, but for the record's times."""
    both = [undisturbed.start("us3l", *command.split(), "--force") for _ in range(2)]
    for process in both:
        assert not re.search("^us3l: |Traceback", process.communicate()[0], re.MULTILINE)
    assert [process.wait() for process in both] == [0, 0]
    undisturbed.must("us3l", "table", "tiny", "main")
    assert "DIFFER" not in undisturbed.must("us3l", "verify", "--level", "1")
    assert not any(undisturbed.folder.rglob("*.tmp"))


def test_what_a_killed_preparation_left_is_cleared_away_by_the_next(project: Project) -> None:
    (project.folder / "cut.py").write_text(CUT)
    data = project.folder / "data/digits"
    for file in ("test_images.npy", "meta.json", "prepare.json"):
        code, output = project.run("cut", file, "1", "prepare", "digits", "--force")
        assert code == -signal.SIGKILL, output
        assert list(data.glob("*.tmp")) and (data / "meta.json").exists() == (file == "prepare.json")
    project.must("us3l", "prepare", "digits", "--force")
    assert "up to date" in project.must("us3l", "prepare", "digits")
    assert not list(data.glob("*.tmp"))


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(Path(f"/proc/self/fd/{file}").readlink()), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda file, target: (done.append("rename"), replace(file, target)))
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert done == [temporary, "rename", tmp_path]


def test_a_folder_that_may_not_be_written_to_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    said = f"{path}: not writable: Permission denied; make {tmp_path} a folder that you may write to"
    with pytest.raises(UserError, match=re.escape(said)), atomic_write(path) as temporary:
        temporary.write_text("ne")
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, "old")]
