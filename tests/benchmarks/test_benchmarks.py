"""What `python -m benchmarks` compares comes to the same, and what it reports is what it measured."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from forks import fork_server
from project import ROOT, RUN, Project, params
from tiny import draw_images
from torch import Tensor

from benchmarks import arithmetic, builders, cuda_graph, fast_paths, prepare
from benchmarks.compare import spread
from benchmarks.parts import PARTS, record_path
from benchmarks.report import report
from benchmarks.setting import Setting, setting
from benchmarks.straightforward import reading
from benchmarks.straightforward.training import Trainer
from us3l.data.sources.cifar import read_cifar
from us3l.data.sources.folder import read_folder
from us3l.data.store import open_store, write_store
from us3l.models.ghost_batch_norm import ghost_batch_norm_eager
from us3l.params.dataset import Folder
from us3l.params.params import Params
from us3l.pipeline.code import STAGES, code
from us3l.pipeline.plan.plan import Plan
from us3l.training.step import TrainStep
from us3l.utils.records import read_record, write_record

CPU = torch.device("cpu")
BATCH = 8
FEW = 4  # images of a step that is only measured


def content(**run: Any) -> dict[str, Any]:
    """A params file with a network of a few channels, on images of CIFAR's size."""
    made = params(**{"batch": {"size": BATCH, "shards": 2}, "optimizer": {"lr": 0.05}} | run)
    view = {
        "resized_crop": {"size": 32, "scale": [0.2, 1.0]},
        "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8},
        "grayscale": 0.2,
        "flip": 0.5,
    }
    views = {
        "normalize": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "pretrain": [view, view],
        "linear": {"resized_crop": {"size": 32, "interpolation": "bicubic"}, "flip": 0.5},
        "test": {"resize": 36, "center_crop": 32},
    }
    made["datasets"]["digits"] = {"source": {"kind": "folder", "train": "train", "test_fraction": 0.5}, "views": views}
    return made


def tiny(**run: Any) -> Setting:
    return setting(Plan(Params.model_validate(content(**run))), "tiny/us3l", CPU, 1, 1, BATCH, BATCH)


METHODS = {
    "simclr": RUN["method"],
    "byol": {"name": "byol", "base_loss": "cosine", "momentum": 0.9, "projector": {"hidden": 16, "output": 8}},
    "other": {**RUN["method"], "base_loss": "cosine", "distillation_loss": "infonce", "distillation_strength": 0.5},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("float64")
def test_the_straightforward_step_learns_what_ours_learns(name: str) -> None:
    regularizer = {"kind": "group", "strength": 0.01, "groups": 3, "warmup_epochs": 1}
    small = tiny(method=METHODS[name], epochs=8, regularizer=regularizer)
    ours, other = builders.train_step(small), builders.trainer(small)
    copy_weights(ours, other)
    views = builders.two_views(small)
    for epoch, widths in ((0, [1.0]), (2, [1.0, 0.8, 0.75]), (3, [1.0, 0.6, 0.25]), (5, [1.0])):
        losses = ours(builders.shards(views, 2), widths, epoch, 0.1)[:, 0]
        expected = other.step(builders.plain_shards(views, 2), widths, epoch, 0.1)
        assert losses.tolist() == pytest.approx(expected, abs=1e-9)
    for name, value in other.network.named_parameters():
        assert_close(ours.student.weights.parameters[name], value)
    encoder = ours.student.weights.views(ours.teacher.momentum_encoder)
    for value, expected in zip(encoder.values(), other.encoder.parameters(), strict=True):
        assert_close(value, expected)


def copy_weights(source: TrainStep, target: Trainer) -> None:
    """Online weights and those of the momentum encoder."""
    parameters = dict(target.network.named_parameters())
    for name, value in source.student.weights.parameters.items():
        parameters[name].data.copy_(value)
    encoder = source.student.weights.views(source.teacher.momentum_encoder)
    for slow, value in zip(target.encoder.parameters(), encoder.values(), strict=True):
        slow.data.copy_(value)


def assert_close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=1e-9)


Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of all parts of the tiny run, each side measured twice."""
    project = Project(tmp_path_factory.mktemp("bench"), content(batch={"size": FEW, "shards": 2}))
    sizes = f"--run tiny/us3l --device cpu --repeats 2 --batch {FEW} --images {BATCH} --out results"
    (project.folder / "results").mkdir()
    project.must("benchmarks", *sizes.split())
    return project.folder / "results"


@pytest.mark.parametrize("part", PARTS)
def test_every_part_tells_what_both_ways_took(results: Path, part: str) -> None:
    record = read_record(record_path(results, part, "cpu"))
    assert (record["repeats"], record["hardware"]["threads"], record["run"]) == (2, 1, "tiny/us3l")
    assert f"--batch {FEW}" in record["command"] and torch.__version__.startswith(record["versions"]["torch"])
    for case in record["cases"]:
        ours = case["sides"]["ours"]
        for name, side in case["sides"].items():
            took = [turn["process"] for turn in side["turns"]]
            assert len(took) == 2 and side["seconds"]["median"] == pytest.approx(sum(took) / 2)
            if name != "ours":
                ratios = [a / b["process"] for a, b in zip(took, ours["turns"], strict=True)]
                assert case["times_as_fast"][name]["whole"] == spread(ratios)
        assert {*case["sides"], *case["absent"]} > {"ours"}


def test_a_step_is_counted_by_its_quarter_and_its_widths(results: Path) -> None:
    cases = read_record(record_path(results, "step", "cpu"))["cases"]
    assert [case["name"] for case in cases[:4]] == [
        "quarter 1: widths 1",
        "quarter 2: widths 1 0.875 0.75",
        "quarter 3: widths 1 0.75 0.5",
        "quarter 4: widths 1 0.625 0.25",
    ]
    last = cases[3]["sides"]["straightforward"]
    assert list(last["parts"]) == ["student at 0.625", "student at 0.25"]
    assert 0 < sum(part["median"] for part in last["parts"].values()) < last["seconds"]["median"]
    assert cases[1]["flop"] > cases[2]["flop"] > cases[3]["flop"] > cases[0]["flop"]


def test_operations_of_a_step_are_those_of_its_layers() -> None:
    small = tiny(backbone="cifar-resnet18")
    projector, head = (512 + 16) * 16 + 16 * 8, 2 * 8 * 16
    backbone = 1_769_472 + 150_994_944 + 3 * 134_217_728  # stem and stages
    assert arithmetic.features(small, 1.0) == 2 * backbone
    student, teacher = 3 * (backbone + projector + head), backbone + projector
    assert arithmetic.step(tiny(backbone="cifar-resnet18", method=METHODS["byol"]), [1.0]) == (
        2 * BATCH * 2 * (student + teacher)
    )


def test_the_report_has_what_was_measured_and_says_what_was_not(
    results: Path, tmp_path: Path, benchmarks: Bench
) -> None:
    shutil.copytree(results, tmp_path / "results")
    (tmp_path / "results" / "prepare-cpu.json").unlink()
    assert benchmarks("--report", str(tmp_path / "page.md"), "--out", str(tmp_path / "results"))[0] == 0
    text = (tmp_path / "page.md").read_text()
    assert "GPU figures are still to be measured, by `python -m benchmarks --device cuda`." in text
    assert "## prepare\n\nNot measured.\n" in text
    [case] = read_record(record_path(results, "augment", "cpu"))["cases"]
    ratio, rate = case["times_as_fast"]["straightforward"]["whole"], case["sides"]["ours"]["images_per_second"]
    [row] = [line for line in text.splitlines() if line.startswith("| two views of an image | image | straightforward")]
    assert f"| **{ratio['median']:.2f}** [{ratio['min']:.2f}, {ratio['max']:.2f}] |" in row
    assert f"| two views of an image | ours | {rate:,.0f} |" in text


def test_a_report_of_nothing_has_no_figures(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert text.count("Not measured.") == len(PARTS) and "|" not in text


def test_a_device_has_columns_where_it_has_records(results: Path, tmp_path: Path) -> None:
    record = read_record(record_path(results, "augment", "cpu"))
    del record["seal"]
    record["cases"][0]["absent"] = ["peer"]
    write_record(record_path(tmp_path, "augment", "cuda"), record)
    text = report(tmp_path)
    [row] = [line for line in text.splitlines() if line.startswith("| two views of an image | image | straightforward")]
    cells = row.split(" | ")
    assert len(cells) == 6 and all(cells) and "| GPU: times as fast |" in text and "CPU: times as fast" not in text
    assert "still to be measured" not in text
    [absent] = [
        line.split(" | ") for line in text.splitlines() if line.startswith("| two views of an image | image | peer")
    ]
    assert absent[3:] == ["", cells[4], " |"]


def test_a_step_without_a_fast_path_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()

    def eager(*arguments: Any) -> Tensor:
        used.add("PyTorch's BatchNorm")
        return ghost_batch_norm_eager(*arguments)

    def convolution(x: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
        used.update([] if x.is_contiguous() and weight.is_contiguous() else ["channels last"])
        return torch.conv2d(x, weight, *arguments)

    def taken(turn: Callable[[], Tensor]) -> tuple[Tensor, set[str]]:
        used.clear()
        return turn(), set(used)

    monkeypatch.setattr(fast_paths, "ghost_batch_norm_eager", eager)
    monkeypatch.setattr(torch.nn.functional, "conv2d", convolution)
    norms, layout = ([taken(side.turn) for side in case.sides.values()] for case in fast_paths.cases(tiny()))
    assert [uses for _, uses in norms] == [{"channels last"}, {"channels last", "PyTorch's BatchNorm"}]
    assert [uses for _, uses in layout] == [{"channels last"}, set()]
    for losses, _ in (*norms, *layout):
        torch.testing.assert_close(losses, norms[0][0], rtol=1e-4, atol=1e-4)


def test_a_cuda_graph_is_absent_without_a_gpu() -> None:
    [case] = cuda_graph.cases(tiny())
    assert case.sides["CUDA graph"] is None


def test_no_stage_depends_on_the_benchmark() -> None:
    modules = set().union(*(code(stage) for stage in STAGES))
    assert "us3l.training.step" in modules and not any(module.startswith("benchmarks") for module in modules)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "bench has no part 'nosuch'; there is augment, regularizer, optimizer, step, evaluate, prepare, "),
        (["--run", "tiny/nosuch"], "params.yaml: the study 'tiny' has no run 'nosuch'; there is us3l"),
        (["--run", "tiny/us3l"], "params.yaml: bench measures runs of simclr or byol with a momentum encoder, "),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmarks: Bench, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(content(regularizer=None)))
    code, _, error = benchmarks("--device", "cpu", "--out", ".", *arguments)
    assert code == 2 and error.startswith(f"benchmarks: {message}") and error.count("\n") == 1


def test_both_ways_read_the_same_pixels(tmp_path: Path) -> None:
    prepare._write_archive(tmp_path / "archive.tar.gz", 8)
    write_store(tmp_path / "ours", read_cifar(tmp_path / "archive.tar.gz", "cifar100", None))
    reading.read_archive(tmp_path / "archive.tar.gz", tmp_path)
    assert np.array_equal(np.load(tmp_path / "True.npy"), open_store(tmp_path / "ours").train.images)
    for split in ("train", "test"):
        prepare._write_photos(tmp_path / split, 4)
    folders = {split: str(tmp_path / split) for split in ("train", "test")}
    write_store(tmp_path / "squares", read_folder(Folder(kind="folder", image_size=64, **folders)))
    reading.read_folder(tmp_path / "train", 64, tmp_path)
    assert np.array_equal(np.load(tmp_path / "images.npy"), open_store(tmp_path / "squares").train.images)


def test_the_row_is_trained_in_pieces_that_go_on_from_each_other(tmp_path: Path) -> None:
    epochs = 30
    few_images = params(epochs=epochs, batch={"size": 64, "shards": 2})
    few_images["datasets"]["digits"]["source"]["test_fraction"] = 0.9
    Project(tmp_path, few_images)
    output = in_pieces("cifar100_row.sh", tmp_path)
    assert "stopped by SIGTERM; the same command continues from here" in output
    assert re.findall(rf"epoch (\d+)/{epochs} ", output) == [str(number + 1) for number in range(epochs)], output
    assert output.endswith((tmp_path / "results/tiny/tables/main.md").read_text())


def test_the_first_hour_on_a_gpu_is_spent_in_pieces_that_go_on_from_each_other(tmp_path: Path) -> None:
    few_images = content(batch={"size": FEW, "shards": 2}, epochs=1)
    few_images["datasets"]["digits"]["source"] = {"kind": "folder", "train": "train", "test": "test", "image_size": 32}
    Project(tmp_path, few_images)
    with chdir(tmp_path):
        draw_images()
    options = f"--run tiny/us3l --threads 1 --repeats 1 --batch {FEW} --images {BATCH}"
    names = {"PARTS": "fast-paths cuda-graph", "OPTIONS": options, "TESTS": str(ROOT / "tests/training/test_on_gpu.py")}
    output = in_pieces("first_gpu_hour.sh", tmp_path, **names)
    for part in names["PARTS"].split():
        assert output.count(f"benchmarks/results/{part}-cpu.json: ") == 1
        assert read_record(record_path(tmp_path / "benchmarks/results", part, "cpu"))["repeats"] == 1
    assert (tmp_path / "benchmarks/results/tests-cpu.txt").read_text() in output
    assert output.endswith((tmp_path / "results/tiny/tables/main.md").read_text())


def in_pieces(script: str, folder: Path, **more: str) -> str:
    """Call a script of benchmarks until all is done, on the CPU in a project's folder; all that it printed."""
    names = {"DATASET": "digits", "STUDY": "tiny", "RUNS": "us3l", "DEVICE": "cpu", "THREADS": "1"} | more
    path = f"{fork_server().programs}:{os.environ['PATH']}"
    environment = os.environ | names | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    codes, output = [], ""
    for piece in (1, 2, 4, 8, 16, 32, 64):  # seconds: longer ones for a machine that needs them to start at all
        made = subprocess.run(
            [ROOT / "benchmarks" / script],
            cwd=folder,
            env=environment | {"PIECE": str(piece)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        codes.append(made.returncode)
        output += made.stdout
        if made.returncode != 75:
            break
    assert codes == [75] * (len(codes) - 1) + [0] and len(codes) > 1, output
    return output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--report page.md", "benchmarks/results: no such folder; give --out one that is there, for the results"),
        ("--report nosuch/page.md --out .", "nosuch: no such folder; give --report a page in one that is there"),
        ("--report there --out .", "there: not writable: it is a folder; move it away"),
        ("augment --out nosuch", "nosuch: no such folder; give --out one that is there, for the results"),
    ],
)
def test_nothing_is_written_where_no_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmarks: Bench, arguments: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    assert benchmarks(*arguments.split()) == (2, "", f"benchmarks: {said}\n")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_report_is_written_to_its_page_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmarks: Bench
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("mine")
    Path("results").mkdir()
    assert benchmarks("--report", "page.md", "--out", "results")[0] == 0
    assert Path("README.md").read_text() == "mine" and "# Benchmarks" in Path("page.md").read_text()
