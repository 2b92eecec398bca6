"""`us3l init`: what it chooses for a folder of images, and what it refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import image_files
import numpy as np
import pytest
from PIL import Image
from project import ROOT

from us3l.params.params import Params
from us3l.params.reading import load
from us3l.params.runs import PretrainRun
from us3l.pipeline.new_project import image_params
from us3l.pipeline.new_project.create import TEMPLATES
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_images(folder: str, count: int = 12, height: int = 9, width: int = 8, classes: str = "ab") -> None:
    for name in classes:
        for seed in range(count):
            image_files.write(Path(folder, name, f"{seed}.png"), seed, height, width)


def chosen(images: str) -> Params:
    Path("params.yaml").write_text(image_params.image_params(Path(images), Path(), TEMPLATES / "images.yaml"))
    return load(Path("params.yaml"))


def training(params: Params) -> PretrainRun:
    [study] = params.studies.values()
    run = study.runs["us3l"]
    assert isinstance(run, PretrainRun)
    return run


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


def test_a_project_of_digits_has_the_runs_of_the_clone(us3l: Command) -> None:
    assert us3l("init", "outer/new")[0] == 0
    plans = [Plan(load(Path(file))) for file in ("outer/new/params.yaml", ROOT / "params.yaml")]
    for run in ("us3l", "pixels"):
        for stage in ("pretrain", "calibrate", "linear"):
            new, known = (RunStage(plan.run("digits", run), stage, 0).stage_params for plan in plans)
            assert new == known
    assert sorted(path.name for path in Path("outer/new").iterdir()) == [
        ".dvc",
        ".dvcignore",
        ".git",
        ".gitignore",
        "README.md",
        "Snakefile",
        "dvc.yaml",
        "params.schema.json",
        "params.yaml",
        "profiles",
    ]
    before = files()
    code, _, error = us3l("init", "outer/new")
    assert code == 2
    assert error == ("us3l: outer/new/README.md: is there already; name a new or an empty folder, or move this away\n")
    assert files() == before


def test_a_project_below_a_git_repository_is_part_of_it(us3l: Command) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    write_images("project/photos")
    code, printed, _ = us3l("init", "project", "--images", "project/photos")
    assert code == 0
    assert printed.splitlines()[1] == "project: ran `dvc init --subdir`"
    assert not Path("project/.git").exists()
    assert 'train: "photos"' in Path("project/params.yaml").read_text()
    for name in (".gitignore", ".dvcignore"):
        assert Path("project", name).read_text().endswith("\n/photos/\n")


def test_what_has_been_started_stays_as_it_is(us3l: Command) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    Path(".dvc").mkdir()
    Path(".dvcignore").write_text("# Add patterns of files dvc should ignore\n")
    Path(".venv").mkdir()
    code, printed, _ = us3l("init")
    assert (code, printed) == (0, ".: a project of 20 jobs, which README.md explains\n")
    assert list(Path(".dvc").iterdir()) == []


def test_without_dvc_it_says_what_to_run(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvc", None)
    code, printed, _ = us3l("init", "new")
    assert code == 0
    assert printed.splitlines()[1:] == [
        "new: ran `git init`",
        "new: DVC is not installed; pip install 'us3l[workflow]', then run `dvc init` here",
    ]
    assert Path("new/dvc.yaml").is_file()


def test_without_git_it_says_what_to_run(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code, printed, _ = us3l("init", "new")
    assert code == 0
    [sentence] = printed.splitlines()[1:]
    assert sentence == "new: git is not installed; once it is, run `git init` and `dvc init` here"


def test_an_init_that_fails_is_passed_on(us3l: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvc", None)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", "/dev/null/none")
    monkeypatch.setenv("GIT_DIR", "/dev/null/none")
    printed = us3l("init", "new")[1]
    assert "new: `git init` failed, so mend this and run it again here: fatal: " in printed


@pytest.mark.parametrize(
    ("shorter", "size", "backbone"),
    [
        (7, 8, "cifar-resnet18"),
        (30, 24, "cifar-resnet18"),
        (64, 64, "cifar-resnet18"),
        (70, 64, "cifar-resnet18"),
        (100, 96, "resnet18"),
        (300, 224, "resnet18"),
    ],
)
def test_images_are_prepared_a_little_smaller_than_their_shorter_side(shorter: int, size: int, backbone: str) -> None:
    write_images("photos", 10, height=shorter + 10, width=shorter)
    params = chosen("photos")
    data = params.datasets["photos"]
    assert data.source.image_size == size
    assert [view.resized_crop.size for view in [*data.views.pretrain, data.views.linear]] == [size] * 3
    assert (data.views.pretrain[0].blur is None) == (size <= 64)
    assert training(params).backbone == backbone


@pytest.mark.parametrize(
    ("images", "batch", "shards", "epochs"),
    [(16, 2, 1, 400), (1000, 64, 1, 400), (50_000, 256, 2, 400), (1_281_167, 256, 2, 100)],
)
def test_batch_and_epochs_fit_the_number_of_images(images: int, batch: int, shards: int, epochs: int) -> None:
    values = image_params._training_values(images)
    assert (values["batch"], values["shards"], values["epochs"]) == (batch, shards, epochs)
    assert values["lr"] == batch / 1024


def test_colours_are_normalized_by_those_of_the_images() -> None:
    write_plain("photos", (255, 51, 102))
    views = chosen("photos").datasets["photos"].views
    assert views.normalize.mean == views.normalize.std == [0.5, 0.1, 0.2]
    assert views.pretrain[0].grayscale == 0.2


def test_grey_images_are_not_tinted() -> None:
    write_plain("photos", (102, 102, 102))
    [view, _] = chosen("photos").datasets["photos"].views.pretrain
    assert view.grayscale == 0
    assert view.color_jitter is not None
    assert (view.color_jitter.brightness, view.color_jitter.saturation, view.color_jitter.hue) == (0.4, 0, 0)


@pytest.mark.parametrize(
    ("folders", "train", "test"),
    [
        (["train", "val"], "photos/train", "photos/val"),
        (["train", "val", "test"], "photos/train", "photos/test"),
        (["train"], "photos/train", None),
        ([""], "photos", None),
    ],
)
def test_folders_of_test_images_are_taken_where_there_are_some(
    folders: list[str], train: str, test: str | None
) -> None:
    for folder in folders:
        write_images(f"photos/{folder}")
    source = chosen("photos").datasets["photos"].source
    assert (source.train, source.test, source.test_fraction) == (train, test, None if test else 0.2)


def test_images_that_exceed_the_memory_stay_in_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_params, "LARGEST_ARRAY", 1000)
    write_images("photos")
    data = chosen("photos").datasets["photos"]
    assert data.source.image_size is None
    assert (data.views.test.resize, data.views.test.center_crop) == (9, 8)


def test_a_name_that_params_cannot_have_is_spelled_otherwise() -> None:
    write_images("Füße & 'Hände'")
    params = chosen("Füße & 'Hände'")
    assert params.build == ["f-e-h-nde"]
    assert params.studies["f-e-h-nde"].tables["main"].title == "Linear accuracy on Füße & 'Hände' (top-1, %)"


def write_plain(folder: str, color: tuple[int, int, int]) -> None:
    """Images whose left half is black."""
    pixels = np.zeros((8, 8, 3), "u1")
    pixels[:, 4:] = color
    for name in [f"{folder}/{each}/{number}.png" for each in "ab" for number in range(12)]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(name)


def broken() -> None:
    write_images("photos")
    Path("photos/a/3.png").write_bytes(b"not an image")


def cut_off() -> None:
    write_images("photos")
    Path("photos/a/3.png").write_bytes(Path("photos/a/3.png").read_bytes()[:80])


def empty() -> None:
    write_images("photos")
    Path("photos/c").mkdir()


def alone() -> None:
    write_images("photos")
    write_images("photos", 1, classes="c")


def differing() -> None:
    write_images("photos/train")
    write_images("photos/val", classes="ac")


PHOTOS = ("new", "--images", "photos")
ROOM = "name a new or an empty folder"


@pytest.mark.parametrize(
    ("given", "arguments", "sentence"),
    [
        (lambda: Path("params.yaml").touch(), (), f"params.yaml: is there already; {ROOM}, or move this away"),
        (lambda: write_images("old/a", 1), ("old",), f"old/a: is there already; {ROOM}, or move this away"),
        (lambda: Path(".gitignore").touch(), (), f".gitignore: is there already; {ROOM}, or move this away"),
        (lambda: Path("new").touch(), ("new",), f"new: is a file; {ROOM}"),
        (lambda: Path("file").touch(), ("file/new",), "file/new: cannot be written: Not a directory; name"),
        (lambda: write_images("photos"), ("photos/a", *PHOTOS[1:]), "photos/a: lies in the folder of the images"),
        (lambda: write_images("photos"), ("photos", *PHOTOS[1:]), "photos: lies in the folder of the images, photos"),
        (lambda: None, PHOTOS, "photos: there is no such folder; name one with a folder of images for each class"),
        (lambda: Path("photos").touch(), PHOTOS, "photos: there is no such folder"),
        (lambda: Path("photos").mkdir(), PHOTOS, "photos: there are no class folders; put the images of each class"),
        (lambda: write_images("photos", classes="a"), PHOTOS, "photos: there is only the class folder a; put"),
        (empty, PHOTOS, "photos/c: the class has no images"),
        (differing, PHOTOS, "photos/val: only one of them has the classes b, c"),
        (broken, PHOTOS, "photos/a/3.png: not a readable image"),
        (cut_off, PHOTOS, "photos/a/3.png: not a readable image"),
        (alone, PHOTOS, "photos/c: one image cannot be split into training and test; add another"),
        (lambda: write_images("photos", 9), PHOTOS, "photos: 14 training images are too few"),
        (lambda: write_plain("photos", (0, 0, 9)), PHOTOS, "photos: all pixels of a colour have the same value"),
    ],
)  # fmt: skip
def test_what_cannot_become_a_project_is_refused_before_anything_is_written(
    us3l: Command, given: Callable[[], None], arguments: tuple[str, ...], sentence: str
) -> None:
    given()
    before = files()
    code, printed, error = us3l("init", *arguments)
    assert (code, printed) == (2, "")
    assert error.startswith("us3l: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert files() == before
