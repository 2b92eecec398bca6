"""The plan: paths, the params of every stage, and the code that a stage depends on."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, RUN, params

from us3l.data.store import FILES
from us3l.params.params import Params
from us3l.params.sampling import width_label
from us3l.pipeline.code import EVALUATIONS, PIPELINE, STAGES, code
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob
from us3l.utils import source
from us3l.utils.errors import UserError

RUN_STAGES = ("pretrain", "calibrate", "linear")


def content() -> dict[str, Any]:
    """Two runs of the same params on two data sets, and two tables; nothing is shared, so an edit changes one place."""
    made = params()
    made["datasets"]["more"] = made["datasets"]["digits"]
    study = made["studies"]["tiny"]
    study["runs"]["other"] = RUN | {"dataset": "more"}
    study["tables"]["second"] = {"title": "Second", "rows": [{"label": "Other", "runs": "other"}]}
    return json.loads(json.dumps(made))


def plan(made: dict[str, Any]) -> Plan:
    return Plan(Params.model_validate(made))


def stage_params(made: dict[str, Any]) -> dict[str, Any]:
    """The params of all stages as JSON, by stage and name."""
    plan_ = plan(made)
    found = {
        f"{stage} {run.name}": RunStage(run, stage, 0).stage_params
        for run in plan_.runs.values()
        for stage in RUN_STAGES
    }
    found |= {f"prepare {data.name}": PrepareJob(data).stage_params for data in plan_.datasets.values()}
    found |= {f"table {table.name}": TableJob(table).stage_params for table in plan_.tables.values()}
    return {name: json.dumps(params) for name, params in found.items()}


OF_ALL_RUNS = {stage: {f"{stage} us3l", f"{stage} other"} for stage in RUN_STAGES}


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("studies.tiny.runs.us3l.method.temperature", 0.2, {"pretrain us3l"}),
        ("studies.tiny.runs.us3l.epochs", 8, {"pretrain us3l"}),
        ("studies.tiny.runs.us3l.sampling", {"widths_per_step": 4}, {"pretrain us3l"}),
        ("studies.tiny.runs.us3l.resources", {"gpus": 2, "threads": 4, "memory_mb": 9}, set()),
        ("studies.tiny.runs.us3l.dataset", "more", set()),
        ("studies.tiny.seeds", [0, 1], set()),
        (
            "studies.tiny.widths",
            [1.0, 0.5, 0.25],
            {*OF_ALL_RUNS["calibrate"], *OF_ALL_RUNS["linear"], "table main", "table second"},
        ),
        ("studies.tiny.tables.main.title", "Another", {"table main"}),
        ("studies.tiny.tables.second.rows.0.label", "Another", {"table second"}),
        ("datasets.more.source.test_fraction", 0.5, {"prepare more"}),
        ("datasets.more.views.pretrain.1.flip", 0.5, {"pretrain other"}),
        ("datasets.more.views.linear", {"flip": 0.5}, {"calibrate other", "linear other"}),
        ("datasets.more.views.test", {"resize": 9}, {"linear other"}),
        ("datasets.more.views.normalize.mean.0", 0.4, {"pretrain other", "calibrate other", "linear other"}),
        ("protocols.quick.calibration", {"passes": 1}, OF_ALL_RUNS["calibrate"]),
        ("protocols.quick.epochs", 3, OF_ALL_RUNS["linear"]),
        ("build", [], set()),
    ],
)
def test_an_edit_changes_the_params_of_the_stages_that_depend_on_it_and_no_other(
    key: str, value: Any, changed: set[str]
) -> None:
    made = content()
    before = stage_params(made)
    *parents, last = (int(part) if part.isdigit() else part for part in key.split("."))
    place: Any = made
    for part in parents:
        place = place[part]
    place[last] = value
    after = stage_params(made)
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_key_left_out_and_its_default_are_the_same_params() -> None:
    spelt = content()
    spelt["studies"]["tiny"]["runs"]["us3l"]["method"]["temperature"] = 0.5
    assert stage_params(spelt) == stage_params(content())


def test_no_two_widths_have_the_same_label() -> None:
    draw = random.Random(0)
    widths = {round(0.25 + 0.025 * step, 3) for step in range(31)} | {0.25 + 0.025 * step for step in range(31)}
    widths |= {round(draw.uniform(0.25, 1), digits) for digits in (2, 3, 4, 5, 8, 17) for _ in range(500)}
    labels = {width_label(width) for width in widths}
    assert len(labels) == len(widths)
    assert all(label.isalnum() for label in labels)


@pytest.mark.parametrize(
    ("width", "label"),
    [(1.0, "w100"), (1, "w100"), (0.25, "w025"), (0.5, "w050"), (0.275, "w0275"), (0.25001, "w025001")],
)
def test_a_width_has_two_decimals_or_as_many_as_it_needs(width: float, label: str) -> None:
    assert width_label(width) == label


def test_a_run_makes_its_files_for_a_seed_and_for_the_widths_it_has() -> None:
    made = content()
    made["studies"]["tiny"]["seeds"] = [0, 7]
    made["studies"]["tiny"]["runs"]["us3l"]["sampling"] = {"range": [0.25, 0.5]}
    run = plan(made).run("tiny", "us3l")
    assert run.widths == (0.25,)
    for seed in (0, 7):
        made_of_it = {stage: [str(path) for path in RunStage(run, stage, seed).outputs] for stage in RUN_STAGES}
        assert made_of_it == {
            "pretrain": [
                f"results/tiny/checkpoints/us3l/seed{seed}.safetensors",
                f"results/tiny/pretrain/us3l/seed{seed}.json",
            ],
            "calibrate": [
                f"results/tiny/networks/us3l/seed{seed}-w025.safetensors",
                f"results/tiny/calibrate/us3l/seed{seed}.json",
            ],
            "linear": [
                f"results/tiny/classifiers/us3l/seed{seed}-w025.safetensors",
                f"results/tiny/linear/us3l/seed{seed}-w025.json",
            ],
        }


def test_a_stage_reads_its_data_set_and_the_weights_of_the_stage_before_it() -> None:
    run = plan(content()).run("tiny", "other")
    data = [f"data/more/{name}" for name in FILES]
    read = {stage: [str(path) for path in RunStage(run, stage, 0).inputs] for stage in RUN_STAGES}
    assert read == {
        "pretrain": data,
        "calibrate": [*data, "results/tiny/checkpoints/other/seed0.safetensors"],
        "linear": [*data, *(f"results/tiny/networks/other/seed0-{label}.safetensors" for label in ("w100", "w025"))],
    }


def test_a_data_set_is_its_arrays_and_a_record_that_no_stage_reads() -> None:
    data = plan(content()).dataset("more")
    assert [str(path) for path in PrepareJob(data).outputs] == [
        *(f"data/more/{name}" for name in FILES),
        "data/more/prepare.json",
    ]
    assert data.files == PrepareJob(data).outputs[:-1]


def test_a_table_needs_the_evaluations_of_its_rows_and_what_these_came_from_and_no_other() -> None:
    needed = TableJob(plan(content()).table("tiny", "second")).inputs
    assert {str(path) for path in needed} == {
        "results/tiny/linear/other/seed0-w025.json",
        "results/tiny/linear/other/seed0-w100.json",
        "results/tiny/calibrate/other/seed0.json",
        "results/tiny/pretrain/other/seed0.json",
    }


def test_a_cell_has_the_run_that_its_row_takes_at_its_width_or_none() -> None:
    made = content()
    made["studies"]["tiny"]["runs"]["other"]["sampling"] = {"range": [0.25, 0.25], "widths_per_step": 1}
    rows = [{"label": "Apart", "runs": {1.0: "us3l"}}, {"label": "Narrow", "runs": "other"}]
    made["studies"]["tiny"]["tables"]["main"]["rows"] = rows
    cells = plan(made).table("tiny", "main").cells
    assert [(cell.number, cell.width, cell.run and cell.run.name) for cell in cells] == [
        (0, 1.0, "us3l"),
        (0, 0.25, None),
        (1, 1.0, None),
        (1, 0.25, "other"),
    ]


def test_the_runs_of_a_group_have_files_that_differ_in_study_run_and_seed_alone() -> None:
    made = content()
    study = made["studies"]["tiny"]
    study["widths"] = [1.0, 0.5, 0.25]
    for name, low, high in (("wide", 0.5, 1), ("narrow", 0.25, 0.5), ("thin", 0.25, 0.3), ("also-thin", 0.25, 0.4)):
        study["runs"][name] = RUN | {"sampling": {"range": [low, high]}}
    made["studies"]["later"] = deepcopy(study)
    groups = plan(made).groups()
    names = [["us3l", "other"], ["wide"], ["narrow"], ["thin", "also-thin"]]
    for stage in ("calibrate", "linear"):
        of_stage = [runs for (each, _), runs in groups.items() if each == stage]
        assert [[run.name for run in runs] for runs in of_stage] == names * 2
        assert [{run.study for run in runs} for runs in of_stage] == [{"tiny"}] * 4 + [{"later"}] * 4
        for runs in of_stage:
            patterns = [replace(run, study="{study}", name="{run}") for run in runs]
            assert len({tuple(RunStage(each, stage, "{seed}").outputs) for each in patterns}) == 1
    assert {stage for stage, _ in groups} == {"calibrate", "linear"}


# --- runs that take another's weights ---------------------------------------------------------------------------------


def taking() -> dict[str, Any]:
    """The runs `us3l` and `other`, and `later`, a study of runs that take their weights, in an order of its own."""
    made = content()
    made["protocols"]["near"] = {"kind": "knn"}
    first = made["studies"]["tiny"]
    reused = {"kind": "reuse", "dataset": "more", "protocol": "near"}
    runs = {
        "cut-near": reused | {"weights_from": "cut"},
        "near": reused | {"weights_from": "tiny/us3l"},
        "cut": {"kind": "prune", "weights_from": "tiny/us3l", "criterion": "filters"},
        "student": RUN | {"dataset": "more", "method": RUN["method"] | {"momentum": None, "teacher": "tiny/us3l"}},
    }
    rows = [{"label": name, "runs": name} for name in ("cut-near", "near")]
    tables = {"main": {"title": "Near", "rows": rows}}
    made["studies"] = {"later": deepcopy(first) | {"runs": runs, "tables": tables, "widths": [0.25]}, "tiny": first}
    return json.loads(json.dumps(made))


US3L, LATER = "results/tiny/{}/us3l/seed0{}", "results/later/{}/{}/seed0{}"


def test_a_run_comes_after_the_one_whose_weights_it_takes() -> None:
    names = [f"{run.study}/{run.name}" for run in plan(taking()).runs.values()]
    assert names == ["tiny/us3l", "later/cut", "later/cut-near", "later/near", "later/student", "tiny/other"]


@pytest.mark.parametrize(
    ("name", "stages", "source", "data", "backbone", "widths"),
    [
        ("near", ("knn",), "us3l", "more", "small-resnet", (0.25,)),
        ("cut-near", ("knn",), "cut", "more", "small-resnet", (0.25,)),
        ("cut", ("calibrate", "linear"), "us3l", "digits", "small-resnet", (0.25,)),
        ("student", ("pretrain", "calibrate", "linear"), "us3l", "more", "small-resnet", (0.25,)),
    ],
)
def test_a_run_has_the_stages_that_no_other_has_done_for_it(
    name: str, stages: tuple[str, ...], source: str, data: str, backbone: str, widths: tuple[float, ...]
) -> None:
    run = plan(taking()).run("later", name)
    found = (run.stages, run.weights_from.name, run.data.name, run.backbone, run.widths)
    assert found == (stages, source, data, backbone, widths)


@pytest.mark.parametrize(
    ("name", "stage", "read", "made"),
    [
        (
            "near",
            "knn",
            [US3L.format("networks", "-w025.safetensors")],
            [LATER.format("knn", "near", "-w025.json")],
        ),
        (
            "cut-near",
            "knn",
            [LATER.format("networks", "cut", "-w025.safetensors")],
            [LATER.format("knn", "cut-near", "-w025.json")],
        ),
        (
            "cut",
            "calibrate",
            [US3L.format("checkpoints", ".safetensors")],
            [LATER.format("networks", "cut", "-w025.safetensors"), LATER.format("calibrate", "cut", ".json")],
        ),
        (
            "cut",
            "linear",
            [LATER.format("networks", "cut", "-w025.safetensors")],
            [LATER.format("classifiers", "cut", "-w025.safetensors"), LATER.format("linear", "cut", "-w025.json")],
        ),
        (
            "student",
            "pretrain",
            [US3L.format("checkpoints", ".safetensors")],
            [LATER.format("checkpoints", "student", ".safetensors"), LATER.format("pretrain", "student", ".json")],
        ),
        (
            "student",
            "calibrate",
            [LATER.format("checkpoints", "student", ".safetensors")],
            [LATER.format("networks", "student", "-w025.safetensors"), LATER.format("calibrate", "student", ".json")],
        ),
    ],
)
def test_a_stage_reads_the_files_of_the_run_whose_weights_it_takes(
    name: str, stage: str, read: list[str], made: list[str]
) -> None:
    run = plan(taking()).run("later", name)
    data = [f"data/{run.data.name}/{each}" for each in FILES]
    assert [str(path) for path in RunStage(run, stage, 0).inputs] == [*data, *read]
    assert [str(path) for path in RunStage(run, stage, 0).outputs] == made
    assert RunStage(run, stage, 0).record in RunStage(run, stage, 0).outputs


@pytest.mark.parametrize(
    ("name", "ancestors"),
    [
        ("near", ["tiny/us3l pretrain", "tiny/us3l calibrate"]),
        ("cut", ["tiny/us3l pretrain", "later/cut calibrate"]),
        ("cut-near", ["tiny/us3l pretrain", "later/cut calibrate"]),
        ("student", ["later/student pretrain", "tiny/us3l pretrain", "later/student calibrate"]),
    ],
)
def test_networks_come_from_trainings_and_a_calibration_whosever_they_are(name: str, ancestors: list[str]) -> None:
    run = plan(taking()).run("later", name)
    assert [f"{each.study}/{each.name} {stage}" for each, stage in run.ancestors] == ancestors


def test_a_table_needs_the_records_of_the_runs_whose_weights_its_rows_take() -> None:
    assert {str(path) for path in TableJob(plan(taking()).table("later", "main")).inputs} == {
        LATER.format("knn", "near", "-w025.json"),
        LATER.format("knn", "cut-near", "-w025.json"),
        LATER.format("calibrate", "cut", ".json"),
        US3L.format("calibrate", ".json"),
        US3L.format("pretrain", ".json"),
    }


def params_of_takers(made: dict[str, Any]) -> dict[str, str]:
    runs = [run for run in plan(made).runs.values() if run.study == "later"]
    return {
        f"{stage} {run.name}": json.dumps(RunStage(run, stage, 0).stage_params) for run in runs for stage in run.stages
    }


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("studies.tiny.runs.us3l.epochs", 8, set()),
        ("studies.tiny.runs.us3l.backbone", "resnet18", {"pretrain student"}),
        ("studies.later.runs.student.method.teacher", "tiny/other", set()),
        ("studies.later.runs.student.method.distillation_loss", "mse", {"pretrain student"}),
        ("studies.later.runs.near.dataset", "digits", set()),
        ("studies.later.runs.near.protocol", None, {"linear near"}),
        ("studies.later.runs.cut.criterion", "batch-norm", {"calibrate cut"}),
        ("protocols.near.neighbours", 3, {"knn near", "knn cut-near"}),
        ("protocols.near.calibration", {"passes": 1}, set()),
        ("protocols.quick.calibration", {"passes": 1}, {"calibrate cut", "calibrate student"}),
        ("datasets.more.views.linear", {"flip": 0.5}, {"calibrate student", "linear student"}),
    ],
)
def test_an_edit_changes_the_params_of_the_takers_that_depend_on_it(key: str, value: Any, changed: set[str]) -> None:
    made = taking()
    made["studies"]["later"]["tables"] = {}
    before = params_of_takers(made)
    *parents, last = key.split(".")
    place: Any = made
    for part in parents:
        place = place[part]
    place[last] = value
    after = params_of_takers(made)
    assert {name for name in after if before.get(name) != after[name]} == changed


def test_a_table_names_its_kind_of_protocol_and_its_protocols() -> None:
    made = taking()
    made["protocols"]["nearer"] = {"kind": "knn", "neighbours": 1}
    made["studies"]["later"]["runs"]["near"]["protocol"] = "nearer"
    table = plan(made).table("later", "main")
    assert (table.kind, table.protocols) == ("knn", ["near", "nearer"])
    params = TableJob(table).stage_params
    assert (params["kind"], params["protocols"]) == ("knn", ["near", "nearer"])


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_the_evaluations_of_each_kind_of_protocol_are_a_stage_with_a_folder(kind: str) -> None:
    made = content()
    training = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}} if kind != "knn" else {}
    made["protocols"]["quick"] = {"kind": kind} | training
    run = plan(made).run("tiny", "us3l")
    assert run.stages == ("pretrain", "calibrate", kind)
    trained = [f"results/tiny/classifiers/us3l/seed0-{label}.safetensors" for label in ("w100", "w025")]
    records = [f"results/tiny/{kind}/us3l/seed0-{label}.json" for label in ("w100", "w025")]
    assert [str(path) for path in RunStage(run, kind, 0).outputs] == ([] if kind == "knn" else trained) + records
    assert [str(path) for path in RunStage(run, kind, 0).records] == records
    assert RunStage(run, kind, 0).stage_params["protocol"]["kind"] == kind
    assert "calibration" not in RunStage(run, kind, 0).stage_params["protocol"]
    assert {EVALUATIONS[kind], "us3l.pipeline.stages.evaluate"} <= code(kind).keys()


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda plan: plan.dataset("x"), "p.yaml has no dataset 'x'; there is digits, more"),
        (lambda plan: plan.run("tiny", "x"), "p.yaml: the study 'tiny' has no run 'x'; there is us3l, other"),
        (lambda plan: plan.run("tiny", "us3"), "p.yaml: the study 'tiny' has no run 'us3'; did you mean 'us3l'?"),
        (lambda plan: plan.table("x", "main"), "p.yaml has no study 'x'; there is tiny"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(ask: Callable[[Plan], Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        ask(Plan(Params.model_validate(content()), Path("p.yaml")))
    assert str(caught.value) == said


def test_of_many_names_the_first_are_listed_and_of_none_it_is_said() -> None:
    made = content()
    made["studies"]["tiny"] |= {"runs": {f"run-{number}": RUN for number in range(149)}, "tables": {}}
    with pytest.raises(UserError, match=r"'x'; there is run-0, run-1, .*, run-15, … and 133 more$"):
        plan(made).run("tiny", "x")
    with pytest.raises(UserError, match=r"the study 'tiny' has no table 'x'; there is none$"):
        plan(made).table("tiny", "x")


# --- the code that a stage depends on ---------------------------------------------------------------------------------

STAGE = """'''What it does.'''
from us3l import direct
from us3l.inner.deep import function

def run():
    '''Nothing.'''
    import us3l.late
    return function(1)  # one
"""
PACKAGE = {
    "__init__.py": "",
    "stage.py": STAGE,
    "direct.py": "import json\nVALUE = 1\n",
    "late.py": "from . import relative\n",
    "relative.py": "from .inner import deep\n",
    "unused.py": "",
    "inner/__init__.py": "",
    "inner/deep.py": "from .. import below\nfrom .beside import function\n",
    "inner/beside.py": "def function(x):\n    return x\n",
    "below.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A made-up us3l whose files the tests write; the hashes forget what they have read."""

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        forget()

    def forget() -> None:
        for function in (source.closure, source._read):
            function.cache_clear()

    monkeypatch.setattr(source, "_PACKAGE", tmp_path)
    for name, text in PACKAGE.items():
        write(name, text)
    yield write
    forget()


def test_a_stage_depends_on_all_that_it_imports_in_whatever_way(package: Callable[[str, str], None]) -> None:
    expected = {"us3l", "us3l.inner"} | {
        f"us3l.{name}" for name in ("stage", "direct", "late", "relative", "below", "inner.deep", "inner.beside")
    }
    assert source.closure("us3l.stage") == expected
    code = source.code_of("us3l.stage")
    assert code.keys() == expected
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in code.values())


def test_a_module_that_a_stage_no_longer_imports_leaves_its_code(package: Callable[[str, str], None]) -> None:
    before = source.code_of("us3l.stage")
    package("stage.py", STAGE.replace("import us3l.late", "pass"))
    assert before.keys() - source.code_of("us3l.stage").keys() == {"us3l.late", "us3l.relative"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stage.py", STAGE.replace("  # one", "  # another")),
        ("stage.py", STAGE.replace("'''Nothing.'''", "'''Something.'''")),
        ("stage.py", STAGE.replace("'''Nothing.'''", "")),
        ("stage.py", STAGE.replace("'''What it does.'''", "\n\n")),
        ("stage.py", STAGE.replace("function(1)", "function(\n        1\n    )")),
        ("unused.py", "VALUE = 2\n"),
    ],
)
def test_comments_docstrings_layout_and_other_modules_keep_the_hash(
    package: Callable[[str, str], None], name: str, text: str
) -> None:
    before = source.code_of("us3l.stage")
    package(name, text)
    assert source.code_of("us3l.stage") == before


@pytest.mark.parametrize(
    ("name", "text", "module"),
    [
        ("stage.py", STAGE.replace("function(1)", "function(2)"), "us3l.stage"),
        ("stage.py", STAGE.replace("return function(1)", "return 'function(1)'"), "us3l.stage"),
        ("direct.py", "import json\nVALUE = 2\n", "us3l.direct"),
        ("inner/beside.py", "def function(x):\n    return -x\n", "us3l.inner.beside"),
        ("inner/__init__.py", "VALUE = 1\n", "us3l.inner"),
        ("below.py", "VALUE = 1\n", "us3l.below"),
    ],
)
def test_other_code_changes_the_hash_of_its_module_and_of_no_other(
    package: Callable[[str, str], None], name: str, text: str, module: str
) -> None:
    before = source.code_of("us3l.stage")
    package(name, text)
    after = source.code_of("us3l.stage")
    assert after.keys() == before.keys()
    assert {each for each in after if after[each] != before[each]} == {module}


def test_every_module_that_a_stage_imports_is_in_its_closure() -> None:
    """In one process, which imports PyTorch once and us3l anew for each stage."""
    watch = """
import importlib, json, sys
for names in sys.argv[1:]:
    for name in names.split():
        importlib.import_module(name)
    print(json.dumps([sys.modules.pop(each) and each for each in [*sys.modules] if each.split(".")[0] == "us3l"]))
"""
    command = [sys.executable, "-c", watch, *(" ".join(modules) for modules in STAGES.values())]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for modules, line in zip(STAGES.values(), printed.splitlines(), strict=True):
        imported = set(json.loads(line))
        assert imported >= set(modules)
        outside = {each for each in imported if not each.startswith(f"{PIPELINE}.")}
        assert outside <= source.closure(*modules)
