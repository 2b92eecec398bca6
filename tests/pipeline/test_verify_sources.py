"""`us3l verify` and the sources of data sets: what lies there is held against what was promised, or not checked."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from attacks import make, seal, the_plan
from image_files import write
from project import params

from us3l.data.sources import transfer
from us3l.data.sources.places import TRANSFER_FOLDERS
from us3l.data.store import open_store
from us3l.pipeline.plan.plan import jobs
from us3l.pipeline.verify.levels import DIFFERS, HOLDS, LEVELS, NOT_CHECKED, verify
from us3l.pipeline.verify.selection import Selection
from us3l.pipeline.verify.sources import missing_source, wrong_sources

IMAGE = Path("pictures/train/a/0.png")
LIST = Path("list.txt")
ARCHIVE, OFFICIAL = Path("data/.downloads"), Path("data/official.pth.tar")
CONTENT = b"an archive"


def content() -> dict[str, Any]:
    """Three data sets, of image files, of an archive on a server, and of torchvision, and an imported checkpoint."""
    made = params()
    views = {"normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}, "pretrain": [{}, {}]}
    folder = {"kind": "folder", "train": "pictures/train", "test": "pictures/test", "subset": str(LIST)}
    archive = {"kind": "cifar10", "url": "https://localhost:9/a.tar.gz", "md5": hashlib.md5(CONTENT).hexdigest()}
    sources = {
        "pictures": folder | {"image_size": 8},
        "files": folder,
        "archive": archive,
        "pets": {"kind": "pets", "root": "data/raw", "download": True},
    }
    made["datasets"] |= {name: {"source": source, "views": views} for name, source in sources.items()}
    run = {"kind": "import", "backbone": "cifar-resnet18", "checkpoint": str(OFFICIAL), "dataset": "archive"}
    runs = made["studies"]["tiny"]["runs"]
    runs["official"] = run | {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    untrained = {"kind": "untrained", "backbone": "cifar-resnet18"}
    runs |= {f"of-{name}": untrained | {"dataset": name} for name in ("pictures", "files", "pets")}
    return made


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with prepared data sets, in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for number, name in enumerate("aabb"):
            write(Path("pictures", split, name, f"{number}.png"), number, 10, 12)
    LIST.write_text("a/0.png\nb/2.png\nb/3.png\n")
    Path("params.yaml").write_text(yaml.safe_dump(content()))
    for path in (ARCHIVE / f"{hashlib.md5(CONTENT).hexdigest()}.tar.gz", OFFICIAL):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)


def selection(*names: str) -> Selection:
    """The preparation of data sets, or the import."""
    plan = the_plan()
    chosen = [job for job in jobs(plan, ["tiny"]) if job.stage in ("prepare", "pretrain") and job.names[-1] in names]
    return Selection([], {}, chosen, plan, [])


def appended(path: Path) -> Callable[[], Any]:
    return lambda: path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("change", "names", "said"),
    [
        (appended(IMAGE), ["files", "pictures"], "pictures/train, pictures/test: not what {} was prepared from: "),
        (lambda: shutil.copy(IMAGE, IMAGE.with_stem("9")), ["files", "pictures"], "pictures/train, pictures/test: "),
        (lambda: IMAGE.rename(IMAGE.with_stem("9")), ["files", "pictures"], "pictures/train, pictures/test: not what"),
        (appended(LIST), ["files", "pictures"], "list.txt: not what {} was prepared from: SHA-256 "),
    ],
)
def test_images_and_lists_are_held_against_the_hashes_of_their_preparation(
    change: Callable[[], Any], names: list[str], said: str
) -> None:
    for name in names:
        make(f"prepare {name}")
        assert wrong_sources(selection(name).jobs) == []
    change()
    for name in names:
        [line] = wrong_sources(selection(name).jobs)
        assert line.startswith(said.format(name))
        assert f"and data/{name}/prepare.json says " in line


def test_archives_and_checkpoints_are_held_against_the_hashes_in_params() -> None:
    chosen = selection("archive", "official").jobs
    assert wrong_sources(chosen) == []
    [archive] = ARCHIVE.iterdir()
    for path in (archive, OFFICIAL):
        path.write_bytes(CONTENT + b"\n")
    kinds = [line.partition(" is ")[0] for line in wrong_sources(chosen)]
    assert kinds == [f"{archive}: its MD5", f"{OFFICIAL}: its SHA-256"]
    assert archive.exists(), "it is not removed, as a preparation does"


def test_sources_that_are_absent_are_named_and_nothing_is_downloaded() -> None:
    for path in (*ARCHIVE.iterdir(), OFFICIAL, LIST):
        path.unlink()
    absent = [missing_source(job) for job in selection("pictures", "archive", "pets", "official").jobs]
    assert sorted(each.partition(" is not here: ")[::2] for each in absent if each) == [
        ("the source of archive", f"{ARCHIVE}/{hashlib.md5(CONTENT).hexdigest()}.tar.gz"),
        ("the source of pets", "data/raw/oxford-iiit-pet"),
        ("the source of pictures", "list.txt"),
        ("what us3l pretrain tiny official 0 imports", str(OFFICIAL)),
    ]


def test_the_folders_of_torchvision_are_known() -> None:
    assert {kind: Path(known.folder).parts[0] for kind, known in transfer._SETS.items()} == TRANSFER_FOLDERS


@pytest.mark.parametrize("name", ["pictures", "files"])
def test_a_data_set_is_prepared_again_from_its_source_wherever_that_lies(name: str) -> None:
    make(f"prepare {name}")
    assert verify(selection(name), 3) == HOLDS


def test_forged_images_are_caught_at_level_3(capsys: pytest.CaptureFixture[str]) -> None:
    """They come from other files, which the forger takes away; the record states the hash of the true ones."""
    make("prepare pictures")
    true = json.loads(Path("data/pictures/prepare.json").read_text())["files"]
    shutil.copytree("pictures", "kept")
    write(IMAGE, 7, 10, 12)
    make("prepare pictures")
    seal(Path("data/pictures/prepare.json"), lambda record: record.update(files=true))
    shutil.rmtree("pictures")
    Path("kept").rename("pictures")
    assert all(not verdict.wrong for verdict in LEVELS[1](selection("pictures")))
    assert verify(selection("pictures"), 3) == DIFFERS
    assert "level 3  2 DIFFER" in capsys.readouterr().out


def test_what_has_no_source_here_is_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    make("prepare pictures")
    shutil.rmtree("pictures")
    assert verify(selection("pictures"), 3) == NOT_CHECKED
    printed = capsys.readouterr().out
    sentence = "the source of pictures is not here: pictures/train, pictures/test"
    assert "level 1  not checked  bitwise: sources against what they promise (1), " in printed
    assert "level 3  not checked  bitwise: results that rest on what is not made again (0), " in printed
    assert f"         {sentence}\n" in printed and f"         {sentence}: taken as it lies here\n" in printed
    assert "level 3  holds" not in printed
    assert open_store(Path("data/pictures")).channels == 3, "it lies there as before"
