"""`us3l verify`, `us3l why` and `us3l plan --cost` over a small project: each mutation is caught at its level."""

import json
import os
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, Project, params
from safetensors.numpy import load_file

from us3l.params.params import Params
from us3l.pipeline.code import code
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.verify.selection import select
from us3l.utils.records import read_record, write_record

RESULTS = Path("results/tiny")
TABLE = RESULTS / "tables/main.md"
EVALUATION = RESULTS / "linear/us3l/seed0-w025.json"
CHECKPOINT = RESULTS / "checkpoints/us3l/seed0.safetensors"
NETWORK = RESULTS / "networks/us3l/seed0-w025.safetensors"
TRAINING = RESULTS / "pretrain/us3l/seed0.json"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("built"), params(epochs=1))
    for stage in ("prepare digits", *(f"{stage} tiny us3l 0" for stage in ("pretrain", "calibrate", "linear"))):
        made.must("us3l", *stage.split())
    made.must("us3l", "table", "tiny", "main")
    return made


@pytest.fixture
def project(built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A copy to change, and the current directory."""
    shutil.copytree(built.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield Project(tmp_path / "copy", params(epochs=1))


def verdicts(project: Project, level: int, *cells: str) -> dict[int, bool]:
    """For each level whether it holds."""
    code, output = project.run("us3l", "verify", *cells, "--level", str(level))
    lines = [line.split() for line in output.splitlines() if line.startswith("level")]
    found = {int(line[1]): line[2] == "holds" for line in lines if line[2] != "not"}
    assert code == (0 if all(found.values()) else 1), output
    return found


def digit_of(path: Path, before: str) -> None:
    """Change the digit that follows `before`."""
    text = path.read_text()
    at = text.index(before) + len(before)
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


def one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def reseal(path: Path, **changed: Any) -> None:
    """A record changed by someone who knows how to seal it again."""
    record = read_record(path)
    del record["seal"]
    write_record(path, record | changed)


def test_all_four_levels_hold_for_what_was_just_made_and_nothing_stays_behind(project: Project) -> None:
    assert verdicts(project, 3) == {0: True, 1: True, 2: True, 3: True}
    assert not list(Path("runs").glob("*"))


@pytest.mark.parametrize(
    "mutate",
    [
        lambda: digit_of(EVALUATION, '"top1": '),
        lambda: digit_of(EVALUATION, '"seconds": '),
        lambda: digit_of(TRAINING, '"lr": '),
    ],
)
def test_a_digit_in_a_record_that_is_not_sealed_again_is_caught_at_level_0(
    project: Project, mutate: Callable[[], Any]
) -> None:
    mutate()
    assert verdicts(project, 0) == {0: False}


@pytest.mark.parametrize(
    ("mutate", "said"),
    [
        (lambda: one_byte(CHECKPOINT), f"{CHECKPOINT}: damaged"),
        (lambda: one_byte(NETWORK), f"{NETWORK}: damaged"),
        (lambda: one_byte(Path("data/digits/train_images.npy")), "data/digits: the prepared data set is damaged"),
        (lambda: one_byte(Path("data/digits/test_labels.npy")), "data/digits: the prepared data set is damaged"),
        (lambda: CHECKPOINT.unlink(), f"{CHECKPOINT}: absent"),
        (lambda: shutil.copy(NETWORK.with_name("seed0-w100.safetensors"), NETWORK), f"{NETWORK}: seal was "),
    ],
)
def test_a_byte_in_an_artifact_is_caught_at_level_1(project: Project, mutate: Callable[[], Any], said: str) -> None:
    mutate()
    assert verdicts(project, 1) == {0: True, 1: False}
    assert said in project.run("us3l", "verify")[1]


def test_a_param_is_caught_at_level_1_and_why_shows_it_with_what_would_run_again(project: Project) -> None:
    project.write(params(epochs=1, optimizer={"lr": 0.07}))
    assert verdicts(project, 1) == {0: True, 1: False}
    output = project.must("us3l", "why", str(EVALUATION))
    assert "-params.run.optimizer.lr: 0.05\n+params.run.optimizer.lr: 0.07\n" in output
    again = "pretrain tiny us3l 0, calibrate tiny us3l 0, linear tiny us3l 0, table tiny main"
    assert output.endswith(f"would run again: {again}\n")


def test_a_line_of_code_is_caught_at_level_1_and_why_names_the_module(project: Project, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "us3l", tmp_path / "us3l")
    project.environment = {"PYTHONPATH": str(tmp_path)}
    with (tmp_path / "us3l" / "evaluation" / "linear.py").open("a") as file:
        file.write("# A comment.\n")
    assert verdicts(project, 1) == {0: True, 1: True}
    with (tmp_path / "us3l" / "evaluation" / "linear.py").open("a") as file:
        file.write("CHUNK = 1023\n")
    assert verdicts(project, 1) == {0: True, 1: False}
    output = project.must("us3l", "why", str(TABLE))
    made = code("linear")["us3l.evaluation.linear"]
    assert f"-code.us3l.evaluation.linear: {made}\n" in output
    assert output.endswith("would run again: linear tiny us3l 0, table tiny main\n")


def test_a_table_that_shows_the_cost_of_trainings_may_rest_on_one_made_again(project: Project) -> None:
    content = params(epochs=1)
    content["studies"]["tiny"]["tables"]["main"]["training_cost"] = True
    project.write(content)
    project.must("us3l", "table", "tiny", "main")
    reseal(TRAINING, seconds=7200.0, core_seconds=36000.0)
    code, output = project.run("us3l", "verify", "--level", "0")
    assert code == 0 and "made again since; the numbers are the same" in output
    project.must("us3l", "table", "tiny", "main")
    assert " 10 |" in TABLE.read_text()
    TABLE.write_text(TABLE.read_text().replace(" 10 |", " 11 |"))
    code, output = project.run("us3l", "verify", "--level", "0")
    assert code == 1 and " 11 |" in output


def test_what_other_hardware_made_is_compared_image_by_image_and_the_verdict_says_why(project: Project) -> None:
    here = read_record(TRAINING)["hardware"]["cpu"]
    for path in (*EVALUATION.parent.glob("*"), TRAINING, RESULTS / "calibrate/us3l/seed0.json"):
        reseal(path, hardware=read_record(path)["hardware"] | {"cpu": "another"})
    project.must("us3l", "table", "tiny", "main")
    output = project.must("us3l", "verify", "--level", "3")
    for level, promise, results in ((2, "within rounding", 3), (3, "statistical", 4)):
        verdict = f"level {level}  holds  {promise}: results that other hardware, versions or code made ({results}), "
        lines = output.partition(verdict)[2].splitlines()[1:3]
        assert lines == [
            f"         made on other hardware: cpu another, here {here} ({results})",
            "         0 of 3,416 predicted classes are others",
        ]
    assert "level 3  holds  bitwise: results that a machine like this one made (1), " in output, "the data"


def test_evaluations_that_were_made_again_with_the_same_numbers_do_not_differ_at_level_0(project: Project) -> None:
    widest = EVALUATION.with_stem("seed0-w100")
    project.must("us3l", "linear", "tiny", "us3l", "0", "--force")
    circumstances: dict[str, Any] = {
        "seconds": 7.0,
        "gpu_hours": 1.0,
        "processes": 2,
        "finished": "2030-01-01T00:00:00+00:00",
        "hardware": {"machine": "x86_64", "cpu": "another", "cores": 2},
        "versions": {"torch": "9"},
        "git": None,
    }
    reseal(EVALUATION, **circumstances)
    record = TABLE.with_suffix(".json")
    code, output = project.run("us3l", "verify", "--level", "0")
    assert code == 0 and "level 0  holds" in output
    assert output.endswith(f"         {record}: the evaluations were made again since; the numbers are the same\n")
    top1 = read_record(widest)["top1"]
    reseal(widest, top1=top1 + 1)
    code, output = project.run("us3l", "verify", "--level", "0")
    assert code == 1 and "numbers are the same" not in output
    assert f"{record}: cells.US3L at 1x.mean is {top1}, and the evaluations give {top1 + 1}" in output
    assert "finished" not in output and "seconds" not in output


def test_what_a_broken_off_verification_left_is_not_taken_for_derived_again(project: Project) -> None:
    shutil.copytree("results", "runs/verify-calibrate/results")
    reseal(Path("runs/verify-calibrate", EVALUATION), top1=99.0)
    assert verdicts(project, 2) == {0: True, 1: True, 2: True}


def test_a_cell_is_derived_again_beside_a_run_with_a_network_of_ones_own(project: Project) -> None:
    content = params(epochs=1)
    study = content["studies"]["tiny"]
    study["runs"]["own"] = study["runs"]["us3l"] | {"backbone": "networks.mine:tiny"}
    project.write(content)
    Path("networks").mkdir()
    Path("networks/mine.py").write_text("def tiny(width): ...\n")
    assert verdicts(project, 3, "main:US3L:0.25x") == {0: True, 1: True, 2: True, 3: True}


def with_tables() -> dict[str, Any]:
    """Another built study with a table of the same name, and rows whose labels begin alike."""
    content = params(epochs=1)
    study = content["studies"]["tiny"]
    labels = ("US3L", "US3L, again", "us-net", "Fourth", "Fifth", "2")
    study["tables"]["main"]["rows"] = [{"label": label, "runs": "us3l"} for label in labels]
    content["studies"]["other"] = study
    return content | {"build": ["tiny", "other"]}


@pytest.mark.parametrize(
    "cells",
    ["tiny/main:US3L:0.25x", "tiny/main:US3L", "tiny/main:us3l:1", "tiny/main:us3l, a", "tiny/main:4:1", "tiny/main:2"],
)
def test_a_name_in_full_is_enough_beside_others_that_begin_so(project: Project, cells: str) -> None:
    project.write(with_tables())
    project.must("us3l", "table", "tiny", "main")
    assert verdicts(project, 0, cells) == {0: True}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("main:US3L:0.25x", "2 tables are called 'main'; type other/main:US3L:0.25x or tiny/main:US3L:0.25x"),
        ("main", "2 tables are called 'main'; type other/main or tiny/main"),
        (
            "tiny/main:us:1x",
            "3 rows of tiny/main begin with 'us'; type tiny/main:US3L:1x or 'tiny/main:US3L, again:1x' or "
            "tiny/main:us-net:1x",
        ),
    ],
)
def test_a_name_of_several_is_refused_with_what_to_type_instead(project: Project, cells: str, said: str) -> None:
    project.write(with_tables())
    assert project.run("us3l", "verify", cells) == (2, f"us3l: {said}\n")
    for candidate in shlex.split(said.partition("; type ")[2].replace(" or ", " ")):
        assert select(Plan(Params.model_validate(with_tables())), candidate).widths


@pytest.mark.parametrize(
    "cells", ["main", "tiny/main", "main:US3L", "main:us", "main:1", "main:US3L:0.25x", "main:1:1"]
)
def test_cells_are_named_by_table_row_and_column(project: Project, cells: str) -> None:
    assert verdicts(project, 1, cells) == {0: True, 1: True}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("nosuch", "no table of params.yaml is called 'nosuch'; there is tiny/main"),
        ("main:x", "tiny/main: no row begins with 'x'; it has: ['US3L']"),
        ("main:1:0.3x", "tiny/main: no column is called '0.3x'; it has: 1x, 0.25x"),
    ],
)
def test_cells_that_are_not_there_are_refused(project: Project, cells: str, said: str) -> None:
    assert project.run("us3l", "verify", cells) == (2, f"us3l: {said}\n")


def test_a_label_may_have_colons(project: Project) -> None:
    content = params(epochs=1)
    content["studies"]["tiny"]["tables"]["main"]["rows"][0]["label"] = "US3L: all: 0.25"
    project.write(content)
    project.must("us3l", "table", "tiny", "main")
    for cells in ("main:US3L: all: 0.25", "main:US3L: all: 0.25:0.25x", "main:us3l: a", "main:1:0.25"):
        assert verdicts(project, 0, cells) == {0: True}


def test_a_cell_that_no_run_makes_is_refused(project: Project) -> None:
    content = params(epochs=1)
    content["studies"]["tiny"]["tables"]["main"]["rows"].append({"label": "Wide", "runs": {1.0: "us3l"}})
    project.write(content)
    said = "us3l: main:Wide:0.25: no run of params.yaml makes this cell\n"
    assert project.run("us3l", "verify", "main:Wide:0.25") == (2, said)


def test_a_broken_off_level_3_goes_on_where_it_was(project: Project) -> None:
    project.write(params(epochs=1))
    process = project.start("us3l", "verify", "--level", "3")
    scratch = Path("runs/verify-pretrain")
    while not (scratch / TRAINING).is_file():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    trained = (scratch / CHECKPOINT).stat().st_mtime_ns
    watched = project.start("us3l", "verify", "--level", "3")
    while not (scratch / EVALUATION).is_file() and watched.poll() is None:
        time.sleep(0.01)
        with suppress(FileNotFoundError):
            assert (scratch / CHECKPOINT).stat().st_mtime_ns == trained
    assert "level 3  holds" in watched.communicate()[0]


def processor_seconds(project: Project, *command: str) -> float:
    """Processor time of a command: on a busy machine, less than the time that passes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    project.in_new_interpreter("us3l", *command)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_level_0_takes_little_more_than_a_plan_and_no_torch(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, level_0 = (processor_seconds(project, *command) for command in (("plan",), ("verify", "--level", "0")))
    assert level_0 < 4 * plan
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    assert " torch\n" not in project.in_new_interpreter("us3l", "verify", "--level", "1")


def test_why_says_when_a_file_was_made_and_that_nothing_has_changed(project: Project) -> None:
    output = project.must("us3l", "why", str(CHECKPOINT))
    assert output.startswith(f"{CHECKPOINT}: made {read_record(TRAINING)['finished']} by `us3l pretrain tiny us3l 0`")
    assert output.endswith("nothing that it rests on has changed since\n")


def test_why_says_of_a_file_that_was_never_made_that_it_is_not_made_yet(project: Project) -> None:
    content = params(epochs=1)
    content["studies"]["tiny"]["widths"] = [1.0, 0.5, 0.25]
    project.write(content)
    new = EVALUATION.with_stem("seed0-w050")
    output = project.must("us3l", "why", str(new))
    assert output.startswith(f"{new}: not made yet; `us3l linear tiny us3l 0` makes it\n")
    assert f"\n{new}: not made yet\n" in output
    assert f"\n{NETWORK.with_stem('seed0-w050')}: not made yet\n" in output
    assert "absent" not in output and "there" not in output
    shutil.rmtree("results")
    output = project.must("us3l", "why", str(TABLE))
    assert output.startswith(f"{TABLE}: not made yet; `us3l table tiny main` makes it\n")
    assert "absent" not in output and "there" not in output


def test_why_says_of_a_file_that_was_deleted_that_it_was_there(project: Project) -> None:
    CHECKPOINT.unlink()
    output = project.must("us3l", "why", str(CHECKPOINT))
    assert output.startswith(f"{CHECKPOINT}: made, and no longer there; `us3l pretrain tiny us3l 0` makes it\n")


def test_why_shows_a_changed_table_cell_by_cell(project: Project) -> None:
    content = params(epochs=1)
    table = content["studies"]["tiny"]["tables"]["main"]
    content["studies"]["tiny"]["runs"]["other"] = content["studies"]["tiny"]["runs"]["us3l"]
    table["rows"].append({"label": "Other", "runs": "other"})
    table["rows"][0] |= {"published": {1.0: {"top1": 70.0, "source": "A paper"}}}
    table["title"] = "Small"
    project.write(content)
    top1 = read_record(EVALUATION)["top1"]
    reseal(EVALUATION, top1=12.5)
    output = project.must("us3l", "why", str(TABLE))
    shown = output.partition("+++ us3l table tiny main, as it would be now\n")[2].partition("\n\n")[0]
    assert shown.splitlines() == [
        f"-US3L at 0.25x: {top1:.4f} (n=1 of 1)",
        "+US3L at 0.25x: 12.5000 (n=1 of 1)",
        "+Other at 1x: not made yet",
        "+Other at 0.25x: not made yet",
        "-US3L.published.1.0: absent",
        "+US3L.published.1.0: {'top1': 70.0, 'source': 'A paper'}",
        "-params.table.title: Tiny",
        "+params.table.title: Small",
    ]


def test_why_tells_a_table_whose_evaluations_were_made_again_with_the_same_numbers(project: Project) -> None:
    reseal(EVALUATION, seconds=7.0)
    output = project.must("us3l", "why", str(TABLE))
    assert "as it would be now\nthe evaluations were made again since; the numbers are the same\n\n" in output
    reseal(EVALUATION, params={})
    digit_of(EVALUATION, '"seconds": ')
    assert f"\n{EVALUATION}: damaged" in project.must("us3l", "why", str(TABLE))


def test_why_refuses_a_file_that_no_job_makes(project: Project) -> None:
    said = "us3l: params.yaml: no job of params.yaml makes this file; `us3l plan` lists the runs\n"
    assert project.run("us3l", "why", "params.yaml") == (2, said)


def test_a_cell_tells_all_that_it_came_from(project: Project) -> None:
    table = json.loads(TABLE.with_suffix(".json").read_text())
    cell = next(cell for cell in table["cells"] if cell["width"] == 0.25)
    assert cell["values"] == [read_record(EVALUATION)["top1"]] and cell["n"] == 1 and cell["gpu_hours"] == 0
    records = [table["records"][path] for path in cell["sources"][0]["files"]]
    assert [record["stage"] for record in records] == ["linear", "pretrain", "calibrate"]
    for record in records:
        assert {
            "params",
            "code",
            "data",
            "checkpoint",
            "git",
            "hardware",
            "versions",
            "seconds",
            "seal",
        } <= record.keys()


def test_the_same_training_gives_the_same_file(project: Project) -> None:
    before = CHECKPOINT.read_bytes()
    project.must("us3l", "pretrain", "tiny", "us3l", "0", "--force")
    assert CHECKPOINT.read_bytes() == before and load_file(CHECKPOINT)


def test_costs_come_from_records_of_jobs_like_them_the_cheapest_first(project: Project) -> None:
    content = params(epochs=1)
    study = content["studies"]["tiny"]
    study["seeds"] = [0, 1]
    run = study["runs"]["us3l"]
    study["runs"] |= {"longer": run | {"epochs": 10}, "other": run | {"backbone": "resnet18", "dataset": "digits"}}
    project.write(content)
    reseal(TRAINING, seconds=3600.0, gpu_hours=2.0)
    lines = project.must("us3l", "plan", "--cost").splitlines()
    rows = [line.split() for line in lines[1:-1]]
    assert [row[1] for row in rows] == ["us3l", "longer", "other"]
    assert rows[0][2] == "1", "one of the two seeds is there"
    assert 1 <= float(rows[0][5]) < 1.1 and float(rows[0][6]) == 2
    assert 20 <= float(rows[1][5]) < 21 and float(rows[1][6]) == 40, "ten times the epochs, two seeds"
    assert rows[2][5:] == ["?", "?"]
    assert lines[-1].endswith("42.000 GPU-hours; runs that no record tells of: 1")
