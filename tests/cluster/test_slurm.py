"""A study through a real Slurm: what its jobs ask for and get, and that they outlive signals, requeues and crashes."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from forks import Process
from project import ROOT, RUN, Project, params
from slurm import Slurm, running_slurm
from waiting import SECONDS
from waiting import until as until_within

GPUS = {"one": 1, "two": 2, "four": 4}  # of the runs
FIRST_EPOCH = "epoch 1/4"
SIGTERM_PENDS = 1 << 14
ALIVE = ("PENDING", "RUNNING", "COMPLETING")
SUPPORT = ROOT / "tests/support"
until = partial(until_within, seconds=4 * SECONDS)  # three interpreters start for each job


def content() -> dict:
    made = params()
    study = made["studies"]["tiny"]
    del study["runs"]["us3l"]
    for name, gpus in GPUS.items():
        method = RUN["method"] | {"temperature": 0.1 * gpus}
        batch = {"size": 32, "shards": 4}
        study["runs"][name] = RUN | {"epochs": 4, "method": method, "batch": batch, "resources": {"gpus": gpus}}
    study["tables"]["main"]["rows"] = [{"label": name, "runs": name} for name in GPUS]
    return made


class Cluster:
    """A project, and the Slurm that its jobs go through; `looks` are those that wait or run, thrice a second."""

    def __init__(self, project: Project, slurm: Slurm) -> None:
        self.project, self.slurm = project, slurm
        self.looks: list[dict[str, dict[str, str]]] = []
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        path = os.pathsep.join(map(str, (SUPPORT / "fake_gpus", SUPPORT, ROOT)))
        project.environment |= {**slurm.environment, "PATH": programs, "PYTHONPATH": path}

    def start(self) -> Process:
        return self.project.start("impatient", "--profile", "profiles/slurm")

    def has_begun(self, rule: str) -> bool:
        return any(job["Comment"].startswith(f"rule_{rule}") for job in running(self.looks[-1]))

    @contextmanager
    def watched(self) -> Iterator[None]:
        end = threading.Event()

        def look() -> None:
            while not end.wait(0.3):
                self.looks.append({n: job for n, job in self.slurm.jobs().items() if job["JobState"] in ALIVE})

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            end.set()
            watcher.join()

    def log(self, run: str) -> str:
        path = self.project.folder / f"logs/pretrain/tiny/{run}/seed0.log"
        return path.read_text() if path.is_file() else ""

    def interrupt_trainings(self) -> None:
        """Let the time of one run out, have Slurm begin another one again, and end the third by a signal."""
        trainings = self._suspended_trainings()
        one, two, four = (trainings[run].environ()["SLURM_JOB_ID"] for run in ("one", "two", "four"))
        self.slurm.call("scontrol", "update", f"JobId={one}", "TimeLimit=1")
        self.slurm.call("scontrol", "requeue", two)
        self.slurm.call("scancel", "--signal=TERM", four)
        until(lambda: all(was_signalled_and_goes_on(each) for each in trainings.values()), "three signals")
        until(lambda: all("stopped by SIGTERM" in self.log(run) for run in GPUS), "three saved states")

    def _suspended_trainings(self) -> dict[str, psutil.Process]:
        """Suspend each training in its midst; the process of each run."""
        found: dict[str, psutil.Process] = {}

        def are_suspended() -> bool:
            for run in GPUS.keys() - found:
                if FIRST_EPOCH in self.log(run):
                    found[run] = self._training(run)
                    found[run].suspend()
            return found.keys() == GPUS.keys()

        until(are_suspended, FIRST_EPOCH)
        return found

    def _training(self, run: str) -> psutil.Process:
        words = ["pretrain", "tiny", run]
        [found] = [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[2:5] == words]
        return found


def running(look: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    return [job for job in look.values() if job["JobState"] == "RUNNING"]


def was_signalled_and_goes_on(process: psutil.Process) -> bool:
    """Resume a suspended process once it has got SIGTERM; where it must end, Slurm itself resumes it."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        [pending] = re.findall(r"^ShdPnd:\s*(\w+)$", status, re.MULTILINE)
        if int(pending, 16) & SIGTERM_PENDS:
            process.resume()
        return process.status() != psutil.STATUS_STOPPED
    return True


@pytest.fixture
def undisturbed(tmp_path: Path) -> Project:
    made = Project(tmp_path / "undisturbed", content())
    made.must("us3l", "prepare", "digits")
    for name in GPUS:
        made.must("us3l", "pretrain", "tiny", name, "0")
    return made


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Cluster]:
    """A study whose trainings were all interrupted, and whose Snakemake was killed during calibrations."""
    with running_slurm({"node": 8}) as slurm:
        project = Project(tmp_path / "built", content())
        project.must("dvc", "init", "--no-scm", "--quiet")
        project.with_workflow(".dvcignore", "us3l")
        project.must("us3l", "dvc")
        cluster = Cluster(project, slurm)
        with cluster.watched():
            snakemake = cluster.start()
            try:
                cluster.interrupt_trainings()
                until(lambda: cluster.has_begun("calibrate"), "a calibration")
            finally:
                snakemake.kill()
            until(lambda: not cluster.looks[-1], "the end of its jobs")
        project.must("snakemake", "--unlock")
        snakemake = cluster.start()
        printed, _ = snakemake.communicate()
        assert snakemake.returncode == 0, printed
        yield cluster


def test_a_study_goes_through_slurm_and_outlives_signals_requeues_time_limits_and_a_killed_snakemake(
    built: Cluster, undisturbed: Project
) -> None:
    """One test, lest workers build the study once each."""
    require_that_jobs_ask_for_what_their_runs_say(built)
    require_that_no_device_was_in_two_jobs(built)
    for run in GPUS:
        require_that_the_training_went_on_to_the_bits_of_an_undisturbed_one(built, undisturbed, run)
    require_that_no_tool_has_anything_to_do(built)
    require_that_an_edit_makes_the_same_jobs_again_for_each_tool(built)


def require_that_jobs_ask_for_what_their_runs_say(built: Cluster) -> None:
    asked = {job["Comment"]: job for look in built.looks for job in running(look)}
    for run, gpus in GPUS.items():
        job = asked[f"rule_pretrain_wildcards_tiny_{run}_0"]
        assert job["TresPerJob"] == f"gres:gpu:{gpus}" and job["NumNodes"] == "1"
        assert job["TRES"].startswith(f"cpu={gpus},mem=2000M,node=1") and job["Requeue"] == "1"
    assert "TresPerJob" not in asked["rule_prepare_wildcards_digits"]


def require_that_no_device_was_in_two_jobs(built: Cluster) -> None:
    most = 0
    for look in built.looks:
        devices = [device for job in running(look) for device in granted(job)]
        assert len(devices) == len(set(devices))
        most = max(most, len(devices))
    assert most == sum(GPUS.values())


def granted(job: dict[str, str]) -> list[int]:
    """The devices in what Slurm calls gpu:3(IDX:0,4-5)."""
    found = re.fullmatch(r"gpu:\d+\(IDX:(.*)\)", job["GRES"])
    ranges = [part.partition("-") for part in found[1].split(",")] if found else []
    return [device for low, _, high in ranges for device in range(int(low), int(high or low) + 1)]


def require_that_the_training_went_on_to_the_bits_of_an_undisturbed_one(
    built: Cluster, undisturbed: Project, run: str
) -> None:
    earlier, _, last = built.log(run).rpartition(f"us3l pretrain tiny {run} 0, ")
    assert FIRST_EPOCH in earlier and "stopped by SIGTERM" in earlier and FIRST_EPOCH not in last
    path = f"results/tiny/checkpoints/{run}/seed0.safetensors"
    assert (built.project.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()


def pending(cluster: Cluster) -> set[str]:
    output = cluster.project.must("snakemake", "--cores", "1", "--dry-run", "--quiet", "host", "progress", "reason")
    return set(re.findall(r"logs/(\w+/\S+).log", output))


def require_that_no_tool_has_anything_to_do(built: Cluster) -> None:
    assert pending(built) == set()
    assert "up to date" in built.project.must("dvc", "status")
    assert "\n0 of 11 jobs to do\n" in built.project.must("us3l", "plan")


def require_that_an_edit_makes_the_same_jobs_again_for_each_tool(built: Cluster) -> None:
    edited = content()
    edited["protocols"]["quick"]["calibration"] = {"passes": 2}
    built.project.write(edited)
    evaluations = {f"{stage}/tiny/{run}/seed0" for stage in ("calibrate", "linear") for run in GPUS}
    assert pending(built) == {*evaluations, "table/tiny/main"}
    assert "\n7 of 11 jobs to do\n" in built.project.must("us3l", "plan")
