"""Fuzzing of the readers: whatever a file holds, it is read or refused with a UserError, soon and in bounded memory.

    python tests/support/fuzz.py READER --minutes 10     # or --cases 300; --case 17 runs one, to debug

A case is a number: the same one makes the same file. A process tries them one after the other, and another one
continues behind a case that takes more than 1 GB of memory or more than 5 seconds of a core.
"""

import argparse
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from us3l.utils.errors import UserError

MEMORY = 2**30  # bytes beyond those of a process that has read nothing yet
SECONDS = 5.0  # of a core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--cases", type=int, default=sys.maxsize)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--case", type=int)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    if given.report:
        _work(given.reader, given.first, given.cases, given.minutes, given.report)
    elif given.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(try_case(given.reader, given.case, Path(folder)))
    else:
        print(json.dumps(_supervise(given.reader, given.first, given.cases, given.minutes)))


def try_case(name: str, number: int, folder: Path) -> str:
    """Make the file of a case and read it: what it was refused with; empty where it was read."""
    from fuzz_inputs import mutated

    reader = _readers(folder)[name]
    random = Random(f"{name} {number}")
    content = random.choice(reader.inputs)(random)
    if random.random() < 0.5:
        content = mutated(content, random, reader.tokens)
    path = folder / reader.name
    path.write_bytes(content)
    try:
        reader.read(path)
    except UserError as refused:
        sentence = str(refused)
        assert "\n" not in sentence and len(sentence) < 3000, sentence
        return sentence
    return ""


@cache
def _readers(folder: Path) -> dict[str, Any]:
    from fuzz_inputs import readers  # imports PyTorch

    return readers(folder)


def _work(name: str, first: int, cases: int, minutes: float, report: Path) -> None:
    """Try cases in this process, which must not take more memory or time; report each before it begins."""
    end = time.monotonic() + minutes * 60 if minutes else float("inf")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try_case(name, -1, folder)
        _limit_memory()
        found = {"tried": 0, "refused": 0, "memory": 0, "memory_case": 0, "seconds": 0.0, "seconds_case": 0}
        for number in range(first, first + cases):
            report.write_text(json.dumps({**found, "at": number}))
            before, start = _begin(), time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of a core: SIGPROF, which faulthandler tells of
            found["refused"] += bool(try_case(name, number, folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            seconds, memory = time.process_time() - start, _peak() - before
            found["tried"] += 1
            if seconds > found["seconds"]:
                found |= {"seconds": round(seconds, 3), "seconds_case": number}
            if memory > found["memory"]:
                found |= {"memory": memory, "memory_case": number}
            if time.monotonic() > end:
                break
        report.write_text(json.dumps({**found, "at": None}))


def _limit_memory() -> None:
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # and then the signal ends the process
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2 * MEMORY, taken + 2 * MEMORY))  # some of it is only claimed


def _begin() -> int:
    """Forget the largest memory so far; bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _supervise(name: str, first: int, cases: int, minutes: float) -> dict:
    """Try cases until the time is over, in a new process behind each that failed; the counts and what failed."""
    total = {"reader": name, "tried": 0, "refused": 0, "memory": 0, "memory_case": 0, "seconds": 0.0, "seconds_case": 0}
    failures, end, last = [], time.monotonic() + minutes * 60, first + cases
    with tempfile.NamedTemporaryFile("r") as report:
        while first < last and (not minutes or time.monotonic() < end):
            left = ["--minutes", str(max(0.01, (end - time.monotonic()) / 60))] if minutes else []
            options = ["--first", str(first), "--cases", str(last - first), "--report", report.name, *left]
            done = subprocess.run([sys.executable, __file__, name, *options], stderr=subprocess.PIPE, text=True)
            found = json.loads(Path(report.name).read_text())
            for key in ("tried", "refused"):
                total[key] += found[key]
            for key in ("memory", "seconds"):
                if found[key] > total[key]:
                    total |= {key: found[key], f"{key}_case": found[f"{key}_case"]}
            if found["at"] is None:
                break
            failures.append({"case": found["at"], "code": done.returncode, "said": done.stderr[-600:]})
            print(json.dumps(failures[-1]), file=sys.stderr, flush=True)
            total["tried"] += 1
            first = found["at"] + 1
    return {**total, "failed": len(failures), "failures": [each["case"] for each in failures]}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
