"""Every command in every circumstance of a terminal, a file system or a locale: no traceback, and no harm."""

import errno
import os
import re
import signal
from typing import Any

import pytest
from circumstance import CIRCUMSTANCES, Outcome, outcomes
from project import Project, params

STAGES = {
    "prepare": "digits",
    "pretrain": "tiny us3l 0",
    "calibrate": "tiny us3l 0",
    "linear": "tiny us3l 0",
    "features-linear": "tiny features 0",
    "knn": "tiny near 0",
    "finetune": "tiny tuned 0",
    "table": "tiny main",
}
MAKING = [f"{stage} {names}" for stage, names in STAGES.items()]
COMPUTING = [f"{stage} --force" for stage in MAKING]
COMMANDS = [
    *MAKING,
    "--help",
    "plan",
    "plan --cost",
    "plan --show tiny/us3l",
    "plan --write",
    "status",
    "show main:1:1x",
    "list backbones",
    "list studies",
    "why results/tiny/networks/us3l/seed0-w025.safetensors",
    "verify --level 0",
    "verify --level 1",
    "requalify",
    "dvc",
    "commit",
    "make nosuch",
    "fetch",
    "publish",
    "schema",
    "import nosuch.pth.tar --backbone resnet18",
    "plan --study n\u00f6\n\x1b[31m",
    "export tiny us3l 0 --width 2",
    "slices tiny us3l 0 --widths 1:0:1",
    "choose tiny us3l --macs 1M",
    "figure tiny nosuch",
    "init .",
    "nosuch",
]
WRITING = ("--force", "--write", "requalify", "schema")
BOX = "\u256d"
TOLD_IN = ("as usual", "all closed", "full stderr", "read-only folder", "C locale")  # what computes tells on stderr
FULL = "us3l: standard output: not writable: {}; send it where there is room for it\n"


def content() -> dict[str, Any]:
    """A run evaluated by each kind of protocol, whose table has characters that not every terminal has."""
    made = params(epochs=1)
    made["datasets"]["digits"]["source"]["test_fraction"] = 0.9
    optimizer = {"lr": 0.1}
    made["protocols"]["quick"]["epochs"] = 1
    made["protocols"] |= {
        "features": {"kind": "features-linear", "epochs": 1, "batch_size": 256, "optimizer": optimizer},
        "near": {"kind": "knn", "neighbours": 5},
        "tuned": {"kind": "finetune", "epochs": 1, "batch_size": 256, "optimizer": optimizer},
    }
    study = made["studies"]["tiny"]
    for name in ("features", "near", "tuned"):
        study["runs"][name] = {"kind": "reuse", "weights_from": "us3l", "dataset": "digits", "protocol": name}
    study["tables"]["main"] = {
        "title": "T\u00e4bl\u00e9 \u2013 \u00b1",
        "rows": [{"label": "\u00dcS3L", "runs": "us3l"}],
    }
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("finished"), content())
    (project.folder / "docs").mkdir()
    made = outcomes(project, [("as usual", command) for command in (*MAKING, "dvc", "schema", "plan --write")])
    assert [code for code, *_ in made] == [0] * len(made), made
    return project


def without_times(outcome: Outcome) -> Outcome:
    """Leave out what differs from one call to the next: dates, numbers of processes, speeds and durations."""
    code, *texts = outcome
    varying = r"20\d\d-\S+ \S+ [+-]\d{4}|kill \d+|[\d,]+ images/s  \d+ \w+ left|\d+\.\d+ s\b"
    printed, errors = (re.sub(varying, "#", text) for text in texts)
    return code, printed, errors


def expected(circumstance: str, usual: Outcome) -> Outcome:
    """What a command does in a circumstance, by what it does as usual."""
    code, printed, errors = usual
    match circumstance:
        case "closed stdout" | "full stdout" if printed:
            reason = errno.EBADF if circumstance == "closed stdout" else errno.ENOSPC
            return 2, "", errors + FULL.format(os.strerror(reason))
        case "unread stdout" if printed:
            return 128 + signal.SIGPIPE, "", errors
        case "full stderr" | "unread stderr":
            return code, printed, ""
        case "all closed":
            return (2 if printed else code), "", ""
        case "C locale":
            return code, *(text.encode("ascii", "backslashreplace").decode() for text in (printed, errors))
    return usual


def test_in_every_circumstance_a_command_does_what_it_does_as_usual_or_says_why_not(finished: Project) -> None:
    calls = [(circumstance, command) for command in COMMANDS for circumstance in CIRCUMSTANCES]
    calls += [(circumstance, command) for command in COMPUTING for circumstance in TOLD_IN]
    found = dict(zip(calls, map(without_times, outcomes(finished, calls)), strict=True))
    wrong = {
        call: (found["as usual", call[1]], made)
        for call, made in found.items()
        if not is_as_expected(*call, found["as usual", call[1]], made)
    }
    assert wrong == {}, "\n".join(f"{call}: {made}" for call, made in wrong.items())


def is_as_expected(circumstance: str, command: str, usual: Outcome, found: Outcome) -> bool:
    code, _, errors = found
    match circumstance:
        case "read-only folder":
            is_refused = code == 2 and errors.count("us3l: ") == 1 and "Read-only file system" in errors
            return found == usual or (is_refused and any(word in command for word in WRITING))
        case "C locale" | "40 columns" if BOX in usual[1] + usual[2]:  # which is drawn for the terminal
            return code == usual[0] and "Traceback" not in errors
    return found == expected(circumstance, usual)
