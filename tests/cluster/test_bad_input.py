"""What is wrong with what Slurm is asked for is told in a sentence, by Slurm itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm import running_slurm
from waiting import until

from us3l.pipeline import slurm as asked
from us3l.pipeline.slurm import require_slurm
from us3l.utils.errors import UserError

JOB: dict[str, Any] = {"nodes": 1, "gpu": 2, "mem_mb": 2000, "runtime": 60}


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    with running_slurm({"node": 8}) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
        yield


@pytest.mark.usefixtures("slurm")
def test_a_job_that_slurm_can_start_is_no_mistake() -> None:
    require_slurm("squeue", 20, [JOB, {**JOB, "gpu": 0}, {**JOB, "slurm_partition": "main"}])


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(
    ("changed", "words", "reason"),
    [
        ({"gpu": 9}, "--gpus=9", "Requested node configuration is not available"),
        ({"mem_mb": 10**6}, "--mem=1000000", "Requested node configuration is not available"),
        ({"slurm_partition": "nosuch"}, "--partition=nosuch", "Invalid partition name specified"),
    ],
)
def test_a_job_that_slurm_can_never_start_is_told_before_it_is_submitted(
    changed: dict[str, Any], words: str, reason: str
) -> None:
    with pytest.raises(UserError, match=rf"^Slurm refuses a job with .*{words}.*: allocation failure: {reason}; see"):
        require_slurm("squeue", 20, [JOB, JOB | changed])


@pytest.mark.usefixtures("slurm")
def test_states_that_nothing_could_tell_are_told_at_the_start() -> None:
    with pytest.raises(UserError, match=r"^this Slurm keeps no accounting, so sacct tells nothing"):
        require_slurm("sacct", 20, [JOB])
    with pytest.raises(UserError, match=r"forgets jobs after 300 s .* set slurm-\S+ to at most 100$"):
        require_slurm("squeue", 101, [JOB])


@pytest.mark.usefixtures("slurm")
def test_jobs_of_a_snakemake_that_was_killed_are_told_until_they_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["sbatch", "--parsable", "--output=/dev/null", "--comment=rule_pretrain_wildcards_a", "--wrap=sleep 1000"]
    number = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    said = f"^Slurm has jobs of an earlier Snakemake in this folder: let them end, or run `scancel {number}`$"
    with pytest.raises(UserError, match=said):
        require_slurm("squeue", 20, [JOB])
    monkeypatch.chdir("/")
    require_slurm("squeue", 20, [JOB])
    monkeypatch.chdir(tmp_path)
    subprocess.run(["scancel", number], check=True)
    until(lambda: not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout, "its end")
    require_slurm("squeue", 20, [JOB])


def test_a_slurm_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^there is no scontrol here"):
        require_slurm("squeue", 20, [JOB])
    program = tmp_path / "scontrol"
    program.write_text("#!/bin/sh\necho 'error: no route to host' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match=r"^Slurm does not answer: error: no route to host$"):
        require_slurm("squeue", 20, [JOB])
    program.write_text("#!/bin/sh\nexec /bin/sleep 100\n")
    monkeypatch.setattr(asked, "PATIENCE", 0.1)
    with pytest.raises(UserError, match=r"^Slurm does not answer within 0\.1 s: scontrol show config$"):
        require_slurm("squeue", 20, [JOB])
