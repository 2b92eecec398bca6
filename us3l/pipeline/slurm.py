"""Slurm, asked before jobs are submitted to it: a mistake is told once, in a sentence, instead of by each job."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from us3l.utils.errors import UserError

PATIENCE = 20  # seconds that Slurm may take for an answer
# Resources of a job, as Snakemake calls them, and the options of sbatch that the executor plugin makes of them.
OPTIONS = {
    "slurm_partition": "--partition",
    "slurm_account": "--account",
    "nodes": "--nodes",
    "gpu": "--gpus",
    "mem_mb": "--mem",
    "runtime": "--time",
}


def require_slurm(status_command: str | None, seconds: int, jobs: Iterable[Mapping[str, Any]]) -> None:
    """Raise UserError where Slurm does not answer, cannot tell states, has others of this folder, or refuses one.

    `status_command` is what asks for states, each `seconds` or more; `jobs` are the resources of each job.
    """
    _require_states(status_command, seconds)
    _require_no_earlier_jobs()
    asked = {tuple((option, job[name]) for name, option in OPTIONS.items() if job.get(name)) for job in jobs}
    for options in sorted(asked, key=str):
        words = [f"{option}={value}" for option, value in options]
        answer = _ask("sbatch", "--test-only", "--wrap=true", *words)
        if answer.returncode:
            reason = _last_line(answer.stderr)
            raise UserError(f"Slurm refuses a job with {' '.join(words)}: {reason}; see docs/clusters.md")


def _require_states(status_command: str | None, seconds: int) -> None:
    """Without accounting, squeue alone tells states, and of ended jobs only for MinJobAge."""
    shown = _ask("scontrol", "show", "config")
    if shown.returncode:
        raise UserError(f"Slurm does not answer: {_last_line(shown.stderr)}")
    config = dict(re.findall(r"^(\w+) += (\S+)", shown.stdout, re.MULTILINE))
    if config["AccountingStorageType"] not in ("accounting_storage/none", "(null)"):
        return
    if status_command != "squeue":
        raise UserError("this Slurm keeps no accounting, so sacct tells nothing: set slurm-status-command: squeue")
    if int(config["MinJobAge"]) < 3 * seconds:  # where the plugin would ask sacct
        raise UserError(
            f"this Slurm forgets jobs after {config['MinJobAge']} s and keeps no accounting: "
            f"set slurm-init-seconds-before-status-checks to at most {int(config['MinJobAge']) // 3}"
        )


def _require_no_earlier_jobs() -> None:
    """Require that nothing which they make is lost: a job that begins deletes what is there of its results."""
    shown = _ask("squeue", "--me", "--noheader", "--format=%i|%k|%Z").stdout
    jobs = [line.split("|", 2) for line in shown.splitlines()]
    earlier = [number for number, comment, folder in jobs if comment.startswith("rule_") and folder == os.getcwd()]
    if earlier:
        command = f"scancel {' '.join(earlier)}"
        raise UserError(f"Slurm has jobs of an earlier Snakemake in this folder: let them end, or run `{command}`")


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=PATIENCE)
    except FileNotFoundError:
        raise UserError(f"there is no {command[0]} here: run Snakemake where Slurm's commands are") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"Slurm does not answer within {PATIENCE} s: {' '.join(command)}") from None


def _last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1].strip()
