"""Each attack of tests/support/attacks.py is caught at its level of `us3l verify`, and not before."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import chdir
from pathlib import Path
from typing import Any, Self

import attacks
import pytest
import yaml
from attacks import CHECKPOINT, DATA, LISTED, TABLE, Listed, make
from project import params

from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.requalify import ProbedJob
from us3l.pipeline.verify import rederive
from us3l.pipeline.verify.levels import LEVELS
from us3l.pipeline.verify.selection import select
from us3l.utils.atomic import atomic_write


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    with chdir(folder):
        Path("params.yaml").write_text(yaml.safe_dump(params(epochs=1)))
        make("prepare digits")
        attacks.again("pretrain", "calibrate", "linear")
    return folder


@pytest.fixture(scope="module")
def derivations(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[ProbedJob], Path], None]:
    """Derives results again, once from the same files: most attacks change none of those."""
    kept, truly = tmp_path_factory.mktemp("derived"), rederive._derive_all

    def derive_all(jobs: list[ProbedJob], folder: Path) -> None:
        given = [] if jobs[0].stage == "prepare" else [CHECKPOINT, *sorted(DATA.glob("*"))]
        content = b"".join(path.read_bytes() for path in [Path("params.yaml"), *given])
        copy = kept / hashlib.sha256(jobs[0].stage.encode() + content).hexdigest()
        if not copy.exists():
            truly(jobs, folder)
            shutil.copytree(folder, copy)
        for path in (path for job in jobs for path in job.outputs):  # and not what is linked there as it was given
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(copy / path, folder / path)
        shutil.copytree(copy / "logits", folder / "logits", dirs_exist_ok=True)

    return derive_all


@pytest.fixture
def project(
    built: Path,
    derivations: Callable[[list[ProbedJob], Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """A copy to attack, in the current directory; what is derived again is made in this process."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(rederive, "_run", run_here)
    monkeypatch.setattr(rederive, "_derive_all", derivations)
    monkeypatch.setattr(rederive, "ThreadPoolExecutor", Inline)


class Inline:
    """Runs each job at once, in this thread."""

    def __init__(self, workers: int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., None], *arguments: Any) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(function(*arguments))
        return done


def run_here(job: RunStage, folder: Path) -> None:
    logits = f" --logits {rederive._logits_folder(job)}" if job.stage in EVALUATIONS else ""
    with chdir(folder):
        make(job.command + logits)


def wrong_at(level: int) -> list[str]:
    """What a level finds."""
    return [line for verdict in LEVELS[level](select(attacks.the_plan(), None)) for line in verdict.wrong]


def test_all_levels_hold_without_an_attack(project: None) -> None:
    assert [wrong_at(level) for level in range(len(LEVELS))] == [[], [], [], []]


def test_a_file_that_is_being_written_is_no_attack_and_another_unknown_one_is(project: None) -> None:
    with atomic_write(TABLE.with_suffix(".md")) as temporary:
        temporary.touch()
        assert wrong_at(1) == []
    TABLE.with_name(".us3l-host-1.tmp").touch()
    assert [line.partition(":")[0] for line in wrong_at(1)] == [f"{TABLE.parent}/.us3l-host-1.tmp"]
    TABLE.with_name(".us3l-host-1.tmp").unlink()


@pytest.mark.parametrize("listed", LISTED, ids=[f"{each.kind}: {each.what}" for each in LISTED])
def test_an_attack_is_caught_at_its_level_and_not_before(project: None, listed: Listed) -> None:
    listed.attack()
    deepest = len(LEVELS) - 1 if listed.level is None else listed.level
    found = [wrong_at(level) for level in range(deepest + 1)]
    assert [level for level, lines in enumerate(found) if lines] == [listed.level] * (listed.level is not None), found


def test_the_page_lists_these_attacks() -> None:
    content = attacks.PAGE.read_text()
    assert attacks.page(content) == content, "python tests/support/attacks.py writes it"
