"""Tables from records that are written by hand: what a cell says, and what an absent or a wrong result looks like."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from project import RUN, params
from pydantic import ValidationError
from scipy import stats

from us3l.params.params import Params
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.plan.table import TableJob, TablePlan
from us3l.pipeline.stages.table import write_table
from us3l.pipeline.tables.formats import MISSING
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

FORMATS = ("md", "csv", "tex", "macros.tex", "html", "metrics.yaml", "json")


def plan(
    rows: list[dict[str, Any]], title: str = "Title", seeds: tuple[int, ...] = (0, 1, 2), **more: Any
) -> TablePlan:
    """A table over the widths 1.0 and 0.25 of runs, of which `narrow` has the width 0.25 alone; `near` is a reuse."""
    content = params()
    content["protocols"]["neighbours"] = {"kind": "knn"}
    study = content["studies"]["tiny"]
    study["runs"]["narrow"] = RUN | {"sampling": {"range": [0.25, 0.25], "widths_per_step": 1}}
    study["runs"]["near"] = {"kind": "reuse", "weights_from": "us3l", "dataset": "digits", "protocol": "neighbours"}
    study["seeds"] = list(seeds)
    study["tables"]["main"] = {"title": title, "rows": rows} | more
    return Plan(Params.model_validate(content)).table("tiny", "main")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


US3L = [{"label": "US3L", "runs": "us3l"}]
WIDE, NARROW = "92.0 [88.0, 95.0]", "80.0 [76.0, 83.0]"  # of one seed
TESTED = {
    "interval": [80.0, 95.0],
    "n": 100,
    "parameters": 7,
    "macs": 9,
    "git": None,
    "hardware": {"cpu": "C", "cores": 2},
}
HOUR = {"evaluation": 0.25, "training": 2.0, "calibration": 0.5}


def run(name: str = "us3l") -> RunPlan:
    return plan(US3L).runs[name]


def stage_params(of: RunPlan, stage: str) -> dict[str, Any]:
    return RunStage(of, stage, 0).stage_params


def describe(kind: str, **facts: Any) -> dict[str, Any]:
    """A record of what a stage took, so far as tables read it."""
    stage = {"evaluation": "linear", "training": "pretrain", "calibration": "calibrate"}[kind]
    hours = {"seconds": 3600 * HOUR[kind], "core_seconds": 3 * 3600 * HOUR[kind], "gpu_hours": 2 * HOUR[kind]}
    return {
        "stage": stage,
        "params": stage_params(run(), stage),
        "code": {"us3l": kind},
        "data": "5eed",
        **hours,
        **facts,
    }


def evaluate(name: str, width: float, accuracies: list[float], **facts: Any) -> None:
    """Write one evaluation a seed."""
    of = run(name)
    network = {"macs": int(width * 1000), "parameters": int(width * 100)}
    for seed, top1 in enumerate(accuracies):
        record = describe("evaluation", width=width, top1=top1, params=stage_params(of, "linear"), seed=seed)
        interval = {"interval": [top1 - 4, top1 + 3]}
        write_record(of.evaluation_record(seed, width), TESTED | record | network | interval | facts)


def train(seeds: int) -> None:
    """Write the records of trainings and of calibrations."""
    for seed in range(seeds):
        write_record(
            run().training_record(seed), describe("training", seed=seed, checkpoint="a", epochs=[{"loss": 1.0}])
        )
        write_record(run().calibration_record(seed), describe("calibration", seed=seed, networks={"w100": "b"}))


def written(table: TablePlan) -> dict[str, str]:
    """The table in every format."""
    write_table(TableJob(table))
    return {suffix: table.file(suffix).read_text() for suffix in FORMATS}


def test_the_page_shows_all_columns_and_what_is_behind_a_number() -> None:
    evaluate("us3l", 1.0, [90.0, 94.0], git={"commit": "c0ffee" + 34 * "0", "dirty": True})
    rows = [US3L[0] | {"label": "<US3L>", "published": {1.0: {"top1": 90.25, "source": "A paper"}}}]
    html = written(plan(rows))["html"]
    assert "<tr><th></th><th>1x</th><th>0.25x</th><th>1x, published</th><th>0.25x, published</th></tr>" in html
    assert "<td>&lt;US3L&gt;</td>" in html and "<td>90.25 [1]</td>" in html
    assert '<button popovertarget="row1-1">92.0 ± 25.4 (n=2 of 3)</button>' in html and "<td>—</td>" in html
    assert "<td>[90.0, 97.0] of 100</td>" in html and "<code>c0ffee0000 with changes</code>" in html
    assert (
        "results/tiny/linear/us3l/seed1-w100.json" in html and "us3l verify &#34;tiny/main:1:1x&#34; --level 3" in html
    )


def cells(table: TablePlan) -> list[dict[str, Any]]:
    return json.loads(written(table)["json"])["cells"]


def markdown_rows(table: TablePlan) -> list[list[str]]:
    lines = [line for line in written(table)["md"].splitlines() if line.startswith("|") and "--:|" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("accuracies", [[50.0, 60.0], [91.25, 92.5, 90.75], [10.0, 10.0, 10.0]])
def test_a_cell_is_the_mean_with_half_of_students_interval(accuracies: list[float]) -> None:
    evaluate("us3l", 1.0, accuracies)
    cell = cells(plan(US3L))[0]
    assert cell["values"] == accuracies
    assert cell["mean"] == pytest.approx(np.mean(accuracies))
    error = np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    low, high = stats.t.interval(0.95, len(accuracies) - 1, np.mean(accuracies), error) if error else (0, 0)
    assert cell["ci95"] == pytest.approx((high - low) / 2)


def test_every_format_shows_the_same_cell() -> None:
    evaluate("us3l", 1.0, [91.0, 92.0, 93.0])
    evaluate("us3l", 0.25, [81.0, 82.0, 83.0])
    texts = written(plan(US3L))
    assert "| US3L | 92.0 ± 2.5 | 82.0 ± 2.5 |\n" in texts["md"]
    assert "US3L & 92.0 $\\pm$ 2.5 & 82.0 $\\pm$ 2.5 \\\\\n" in texts["tex"]
    frame = pd.read_csv(StringIO(texts["csv"]))
    assert frame[["row", "width", "mean", "n", "planned"]].values.tolist() == [
        ["US3L", 1.0, 92.0, 3, 3],
        ["US3L", 0.25, 82.0, 3, 3],
    ]
    assert frame["ci95"].tolist() == pytest.approx([cell["ci95"] for cell in cells(plan(US3L))])
    assert "n = 3." in texts["md"] and "n = 3." in texts["tex"]


def test_one_seed_has_the_interval_over_test_images_and_none_over_seeds() -> None:
    evaluate("us3l", 1.0, [92.0])
    table = plan(US3L, seeds=(0,))
    texts = written(table)
    assert markdown_rows(table)[-1] == ["US3L", "92.0 [88.0, 95.0]", MISSING]
    assert "one seed, with Wilson's 95% interval over the test images in brackets" in texts["md"]
    assert "±" not in texts["md"] and "n = " not in texts["md"]
    assert (cells(table)[0]["ci95"], cells(table)[0]["wilson"]) == (None, [88.0, 95.0])
    frame = pd.read_csv(StringIO(texts["csv"]))
    assert frame["ci95"].isna().all() and frame[["wilson_low", "wilson_high"]].values[0].tolist() == [88.0, 95.0]


def test_an_evaluation_of_an_older_version_is_named_in_one_sentence() -> None:
    evaluate("us3l", 1.0, [92.0])
    path = run().evaluation_record(0, 1.0)
    write_record(path, {key: value for key, value in read_record(path).items() if key not in ("interval", "seal")})
    with pytest.raises(UserError, match=f"^{path}: has no entry interval: another version of us3l wrote it; make it"):
        written(plan(US3L, seeds=(0,)))


def test_the_csv_has_the_size_of_each_network() -> None:
    evaluate("us3l", 0.25, [81.0, 82.0, 83.0])
    frame = pd.read_csv(StringIO(written(plan(US3L))["csv"]))
    assert frame[["macs", "parameters", "n"]].values[1].tolist() == [250, 25, 3]
    assert frame["macs"].isna()[0]


def test_a_cell_without_results_is_a_mark_and_never_a_number() -> None:
    evaluate("us3l", 0.25, [82.0])
    table = plan(US3L, seeds=(0,))
    texts = written(table)
    assert markdown_rows(table)[-1] == ["US3L", MISSING, "82.0 [78.0, 85.0]"]
    assert "US3L & --- & 82.0 {[}78.0, 85.0] " in texts["tex"]
    assert f"{MISSING}: no result" in texts["md"] and "---: no result" in texts["tex"]
    assert texts["csv"].splitlines()[1] == "US3L,1.0,,,0,1,,,,"
    missing = cells(table)[0]
    assert (missing["mean"], missing["ci95"], missing["n"], missing["values"]) == (None, None, 0, [])


def test_a_table_without_any_results_is_all_marks() -> None:
    table = plan(US3L)
    assert markdown_rows(table)[-1] == ["US3L", MISSING, MISSING]
    assert "n = 0;" in written(table)["md"]


def test_a_cell_with_some_of_its_seeds_says_so() -> None:
    evaluate("us3l", 1.0, [91.0, 93.0])
    evaluate("us3l", 0.25, [82.0])
    table = plan(US3L)
    assert markdown_rows(table)[-1] == ["US3L", "92.0 ± 12.7 (n=2 of 3)", "82.0 [78.0, 85.0] (n=1 of 3)"]
    assert "n = 1 to 2; of one seed, Wilson's 95% interval" in written(table)["md"]


def test_a_row_may_take_each_width_from_another_run() -> None:
    evaluate("us3l", 1.0, [92.0])
    evaluate("us3l", 0.25, [82.0])
    evaluate("narrow", 0.25, [80.0])
    rows = [{"label": "Apart", "runs": {1.0: "us3l", 0.25: "narrow"}}, {"label": "Narrow", "runs": "narrow"}]
    table = plan(rows, seeds=(0,))
    assert markdown_rows(table)[1:] == [["Apart", WIDE, NARROW], ["Narrow", MISSING, NARROW]]
    assert [cell["planned"] for cell in cells(table)] == [1, 1, 0, 1]


def test_a_row_may_leave_a_width_out() -> None:
    evaluate("us3l", 1.0, [92.0])
    evaluate("us3l", 0.25, [82.0])
    table = plan([{"label": "Wide", "runs": {1.0: "us3l"}}], seeds=(0,))
    assert markdown_rows(table)[-1] == ["Wide", WIDE, MISSING]


def test_the_json_names_what_each_cell_came_from() -> None:
    train(2)
    evaluate("us3l", 1.0, [91.0, 93.0])
    first, second = cells(plan(US3L))
    assert first["sources"] == [
        {
            "seed": seed,
            "top1": top1,
            "files": [
                f"results/tiny/linear/us3l/seed{seed}-w100.json",
                f"results/tiny/pretrain/us3l/seed{seed}.json",
                f"results/tiny/calibrate/us3l/seed{seed}.json",
            ],
        }
        for seed, top1 in enumerate([91.0, 93.0])
    ]
    assert second["sources"] == []


def test_the_json_has_the_records_of_all_files_that_its_cells_came_from() -> None:
    train(1)
    evaluate("us3l", 1.0, [91.0])
    evaluate("us3l", 0.25, [81.0])
    table = plan(US3L, seeds=(0,))
    made = json.loads(written(table)["json"])
    assert {"title", "fingerprint", "params", "code", "inputs"} <= made.keys()
    assert [Path(path) for path in made["records"]] == TableJob(table).inputs
    assert made["inputs"] == {str(path): read_record(path)["seal"] for path in TableJob(table).inputs}
    for path, record in made["records"].items():
        whole = read_record(Path(path))
        assert {key: whole[key] for key in whole if key not in ("code", "epochs", "networks")} == {
            key: value for key, value in record.items() if key != "code"
        }
        assert isinstance(record["code"], str)
    assert len({record["code"] for record in made["records"].values()}) == 3


def test_the_json_counts_the_hours_behind_each_cell_and_each_training_once() -> None:
    train(2)
    evaluate("us3l", 1.0, [91.0, 93.0])
    evaluate("us3l", 0.25, [81.0])
    table = plan(US3L, seeds=(0, 1))
    wide, narrow = cells(table)
    whole = json.loads(written(table)["json"])
    assert (wide["hours"], wide["gpu_hours"]) == (5.5, 11)
    assert (narrow["hours"], narrow["gpu_hours"]) == (2.75, 5.5)
    assert (whole["hours"], whole["gpu_hours"]) == (5.75, 11.5)


def test_the_same_records_give_the_same_bytes_and_others_another_fingerprint() -> None:
    train(1)
    evaluate("us3l", 1.0, [91.0])
    table = plan(US3L, seeds=(0,))
    first = written(table)
    assert written(table) == first
    assert read_record(table.file("json"))["fingerprint"] == json.loads(first["json"])["fingerprint"]
    evaluate("us3l", 1.0, [91.0], seconds=1)
    assert json.loads(written(table)["json"])["fingerprint"] != json.loads(first["json"])["fingerprint"]


def test_the_caption_names_the_kind_of_protocol_and_the_protocol() -> None:
    texts = written(plan(US3L))
    assert "\n\nLinear accuracy (protocol quick): mean ± half of the 95% interval" in texts["md"]
    assert "\\caption{Title. Linear accuracy (protocol quick): mean $\\pm$ half of" in texts["tex"]
    assert json.loads(texts["json"])["caption"].startswith("Linear accuracy (protocol quick): mean ± half of")
    near = written(plan([{"label": "Near", "runs": "near"}]))
    assert "k-nearest-neighbour accuracy (protocol neighbours): mean" in near["md"]


# --- runs that take weights -----------------------------------------------------------------------------------------


def test_a_cell_names_the_records_of_the_run_whose_networks_it_evaluates() -> None:
    train(1)
    near = plan(US3L).runs["near"]
    record = describe("evaluation", width=1.0, top1=88.0, interval=[84.0, 91.0], macs=1, parameters=1, seed=0) | {
        "stage": "knn",
        "params": stage_params(near, "knn"),
    }
    write_record(near.evaluation_record(0, 1.0), TESTED | record)
    table = plan([{"label": "Near", "runs": "near"}], seeds=(0,))
    cell = cells(table)[0]
    assert (cell["mean"], cell["hours"]) == (88.0, sum(HOUR.values()))
    assert cell["sources"][0]["files"] == [
        "results/tiny/knn/near/seed0-w100.json",
        "results/tiny/pretrain/us3l/seed0.json",
        "results/tiny/calibrate/us3l/seed0.json",
    ]


def test_a_record_of_other_params_is_to_be_made_again_by_the_run_that_made_it() -> None:
    train(1)
    near = plan(US3L).runs["near"]
    record = describe("evaluation", width=1.0, top1=88.0, seed=0) | {
        "stage": "knn",
        "params": stage_params(near, "knn"),
    }
    write_record(near.evaluation_record(0, 1.0), TESTED | record)
    made = stage_params(run(), "pretrain")
    made["run"]["epochs"] = 9
    write_record(run().training_record(0), describe("training", seed=0, params=made))
    said = "made with run.epochs = 9, but params.yaml says 4: run `us3l pretrain tiny us3l 0` again, or undo the edit"
    assert refusal(plan([{"label": "Near", "runs": "near"}])) == f"{run().training_record(0)}: {said}"


# --- published figures ----------------------------------------------------------------------------------------------

PAPER, OTHER = "A paper, table 1", "Another_paper"
BESIDE = [
    {"label": "US3L", "runs": "us3l", "published": {1.0: {"top1": 90.25, "source": OTHER}}},
    {"label": "Narrow", "runs": "narrow", "published": {0.25: {"top1": 70, "source": PAPER}}},
    {"label": "Both", "runs": "us3l", "published": {w: {"top1": 80.5, "source": OTHER} for w in (1.0, 0.25)}},
]


def test_published_figures_stand_beside_ours_with_their_sources() -> None:
    evaluate("us3l", 1.0, [91.0, 92.0, 93.0])
    texts = written(plan(BESIDE))
    assert markdown_rows(plan(BESIDE)) == [
        ["", "1x", "0.25x", "1x, published", "0.25x, published"],
        ["US3L", "92.0 ± 2.5", MISSING, "90.25 [1]", ""],
        ["Narrow", MISSING, MISSING, "", "70.0 [2]"],
        ["Both", "92.0 ± 2.5", MISSING, "80.5 [1]", "80.5 [1]"],
    ]
    assert texts["md"].endswith(f" Published: [1] {OTHER}; [2] {PAPER}.\n")
    assert texts["csv"].splitlines()[:3] == [
        "row,width,mean,ci95,n,planned,wilson_low,wilson_high,macs,parameters,published,published_source",
        f"US3L,1.0,92.0,{cells(plan(BESIDE))[0]['ci95']},3,3,,,1000,100,90.25,{OTHER}",
        "US3L,0.25,,,0,3,,,,,,",
    ]
    assert f'70.0,"{PAPER}"' in texts["csv"].splitlines()[4]
    figures = [cell["published"] for cell in cells(plan(BESIDE))]
    assert figures[:2] == [{"top1": 90.25, "source": OTHER}, None]
    assert "US3L & 92.0 $\\pm$ 2.5 & --- & 90.25 {[}1] &  \\\\" in texts["tex"]
    assert r" & \multicolumn{2}{c}{Here} & \multicolumn{2}{c}{Published} \\" in texts["tex"]
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in texts["tex"]
    assert r"\begin{tabular}{lrrrr}" in texts["tex"]


def test_a_table_that_asks_for_published_figures_has_empty_columns_where_none_is_known() -> None:
    table = plan(US3L, published=True)
    assert markdown_rows(table)[0] == ["", "1x", "0.25x", "1x, published", "0.25x, published"]
    assert markdown_rows(table)[1] == ["US3L", MISSING, MISSING, "", ""]
    assert "Published: " not in written(table)["md"]
    assert [cell["published"] for cell in cells(table)] == [None, None]
    assert written(table)["csv"].splitlines()[1] == "US3L,1.0,,,0,3,,,,,,"


def test_a_table_without_published_figures_has_no_columns_for_them() -> None:
    texts = written(plan(US3L))
    assert "ublished" not in "".join(texts[suffix] for suffix in ("md", "csv", "tex"))
    assert all("published" not in cell for cell in cells(plan(US3L)))


@pytest.mark.parametrize(("gpu_hours", "unit", "cost"), [(4.0, "GPU-hours", "4"), (0.0, "core-hours", "6")])
def test_the_cost_of_a_rows_trainings_stands_beside_their_accuracy(gpu_hours: float, unit: str, cost: str) -> None:
    rows = [*US3L, {"label": "Each", "runs": {"1.0": "us3l", "0.25": "narrow"}}, {"label": "None", "runs": "narrow"}]
    table = plan(rows, seeds=(0, 1), training_cost=True)
    evaluate("us3l", 1.0, [91.0, 92.0])
    for seed, hours in enumerate((1.0, 3.0)):
        facts = describe("training", seed=seed, checkpoint="a", epochs=[]) | {"gpu_hours": gpu_hours}
        write_record(run().training_record(seed), facts | {"seconds": 3600 * hours})
    texts = written(table)
    assert markdown_rows(table) == [
        ["", "1x", "0.25x", "hours, training", f"{unit}, training"],
        ["US3L", "91.5 ± 6.4", MISSING, "2", cost],
        ["Each", "91.5 ± 6.4", MISSING, "2", cost],
        ["None", MISSING, MISSING, MISSING, MISSING],
    ]
    assert texts["csv"].splitlines()[0].endswith(",training_hours,training_core_hours,training_gpu_hours")
    assert texts["csv"].splitlines()[1].endswith(f",2,2,,,1000,100,2.0,6.0,{gpu_hours}")
    assert texts["csv"].splitlines()[5].endswith(",,,")
    assert r"\multicolumn{2}{c}{Here} & \multicolumn{2}{c}{Training}" in texts["tex"]
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in texts["tex"]
    assert texts["md"].endswith(" Training: all of a row's trainings, mean over seeds.\n")
    assert "raining" not in written(plan(rows))["md"]


def test_a_row_of_several_trainings_costs_their_sum() -> None:
    table = plan([{"label": "Each", "runs": {"1.0": "us3l", "0.25": "narrow"}}], seeds=(0,), training_cost=True)
    for name, width, hours in (("us3l", 1.0, 1.0), ("narrow", 0.25, 0.5)):
        evaluate(name, width, [90.0])
        of = table.runs[name]
        facts = describe("training", seed=0, checkpoint="a", epochs=[], params=stage_params(of, "pretrain"))
        write_record(of.training_record(0), facts | {"seconds": 3600 * hours, "gpu_hours": 0.0})
    assert markdown_rows(table)[1][-2:] == ["1.5", "12"]


# --- what is refused ------------------------------------------------------------------------------------------------


def refusal(table: TablePlan) -> str:
    """The sentence with which the table is refused; no file of it is written."""
    with pytest.raises(UserError) as refused:
        write_table(TableJob(table))
    assert not any(path.exists() for path in TableJob(table).outputs)
    return str(refused.value)


@pytest.mark.parametrize(
    "of", [lambda r: r.evaluation_record(0, 1.0), lambda r: r.training_record(0), lambda r: r.calibration_record(0)]
)
def test_a_record_with_a_changed_digit_stops_the_table(of: Callable[[RunPlan], Path]) -> None:
    train(1)
    evaluate("us3l", 1.0, [91.0])
    path = of(run())
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert refusal(plan(US3L)).startswith(f"{path}: damaged: it was changed after it was written")


def test_an_evaluation_of_other_params_stops_the_table() -> None:
    made = stage_params(run(), "linear")
    made["protocol"]["epochs"] = 9
    evaluate("us3l", 1.0, [91.0], params=made)
    said = (
        "made with protocol.epochs = 9, but params.yaml says 2: run `us3l linear tiny us3l 0` again, or undo the edit"
    )
    assert refusal(plan(US3L)) == f"{run().evaluation_record(0, 1.0)}: {said}"


def test_an_evaluation_that_does_not_say_how_it_was_made_stops_the_table() -> None:
    evaluate("us3l", 1.0, [91.0], params={})
    assert f"{run().evaluation_record(0, 1.0)}: made with protocol = absent" in refusal(plan(US3L))


@pytest.mark.parametrize("there", [(0, 0.25), (1, 1.0)])
def test_an_evaluation_of_another_width_or_seed_stops_the_table(there: tuple[int, float]) -> None:
    evaluate("us3l", 1.0, [91.0])
    path = run().evaluation_record(*there)
    run().evaluation_record(0, 1.0).rename(path)
    (seed, width), again = there, f"run `us3l linear tiny us3l {there[0]}` again"
    said = f"holds seed 0, and by its name seed {seed}" if seed else f"holds width 1.0, and by its name width {width}"
    assert refusal(plan(US3L)) == f"{path}: {said}: {again}"


# --- characters -----------------------------------------------------------------------------------------------------

AWKWARD = r"a|b & 50% _x_ #1 $y$ {z} \w ~ ^ < >"
ESCAPED = (
    r"a\textbar{}b \& 50\% \_x\_ \#1 \$y\$ \{z\} \textbackslash{}w \textasciitilde{} \textasciicircum{} "
    r"\textless{} \textgreater{}"
)


def test_a_bar_in_a_label_stays_in_its_markdown_cell() -> None:
    table = plan([{"label": "a|b", "runs": "us3l"}])
    assert markdown_rows(table)[-1] == [r"a\|b", MISSING, MISSING]


def test_a_label_survives_the_csv() -> None:
    label = f'{AWKWARD}, "quoted"'
    assert (
        pd.read_csv(StringIO(written(plan([{"label": label, "runs": "us3l"}]))["csv"]))["row"].tolist() == [label] * 2
    )


def test_latex_prints_every_character_of_a_label() -> None:
    tex = written(plan([{"label": AWKWARD, "runs": "us3l"}], title="100% ± [x]"))["tex"]
    assert f"{ESCAPED} & " in tex
    assert r"\caption{100\% $\pm$ {[}x]. " in tex


TWO = [{"label": "US3L", "runs": "us3l"}, {"label": "Alone", "runs": "narrow"}]


@pytest.mark.parametrize(
    ("narrow", "is_bold"),
    [([70.0, 71.0, 72.0], True), ([79.0, 80.0, 81.0], False), ([82.0, 82.0, 82.0], False), ([], False)],
)
def test_latex_sets_the_best_of_a_column_bold_where_the_intervals_are_apart(narrow: list[float], is_bold: bool) -> None:
    evaluate("us3l", 0.25, [81.0, 82.0, 83.0])
    evaluate("narrow", 0.25, narrow)
    tex = written(plan(TWO))["tex"]
    assert ("US3L & --- & \\textbf{82.0 $\\pm$ 2.5} \\\\" in tex) == is_bold
    assert ("Bold: the best of its column" in tex) == is_bold == ("textbf" in tex)


def test_latex_tells_bold_by_wilsons_interval_of_one_seed() -> None:
    evaluate("us3l", 0.25, [82.0])
    evaluate("narrow", 0.25, [74.0])
    assert "\\textbf{82.0 {[}78.0, 85.0]}" in written(plan(TWO, seeds=(0,)))["tex"]
    evaluate("narrow", 0.25, [75.0])
    assert "textbf" not in written(plan(TWO, seeds=(0,)))["tex"]


def test_metrics_are_the_numbers_of_the_cells_that_have_some() -> None:
    evaluate("us3l", 0.25, [81.0, 82.0, 83.0])
    table = plan(TWO)
    found = yaml.safe_load(written(table)["metrics.yaml"])
    assert found == {"US3L": {"0.25x": {"mean": 82.0, "ci95": cells(table)[1]["ci95"], "n": 3}}}


def test_rows_of_one_label_are_refused() -> None:
    with pytest.raises(ValidationError, match="'US3L'] names a label twice; name each once"):
        plan(US3L + US3L)


def compiled(document: str) -> subprocess.CompletedProcess[str]:
    Path("paper.tex").write_text(document)
    return subprocess.run(["pdflatex", "-halt-on-error", "paper.tex"], capture_output=True, encoding="utf-8")


needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


@needs_latex
def test_a_manuscript_takes_its_numbers_from_the_tables(folder: Path) -> None:
    rows = [{"label": label, "runs": "us3l"} for label in (AWKWARD, "[1] first", "plain")]
    rows[2]["published"] = {1.0: {"top1": 70.5, "source": AWKWARD}}
    evaluate("us3l", 0.25, [81.0, 82.0, 83.0])
    written(plan([*rows, {"label": "Alone", "runs": "narrow"}], title=AWKWARD))
    tables = "results/tiny/tables/main"
    manuscript = rf"""\documentclass{{article}}\usepackage{{booktabs}}\input{{{tables}.macros.tex}}
\pdfcompresslevel=0 \begin{{document}}
\listoftables \input{{{tables}.tex}} \section{{With \cellof[mean]{{tiny/main}}{{plain}}{{0.25x}}\%}}
Table~\ref{{tab:tiny-main}}: from \cellof[low]{{tiny/main}}{{{ESCAPED}}}{{0.25x}} up to
\cellof[high]{{tiny/main}}{{{{[}}1] first}}{{0.25x}} with \cellof[n]{{tiny/main}}{{plain}}{{0.25x}} seeds
\begin{{table}}\caption{{\cellof{{tiny/main}}{{{ESCAPED}}}{{0.25x}}}}\end{{table}}
\end{{document}}"""
    for _ in ("to number", "to list"):
        done = compiled(manuscript)
        assert done.returncode == 0, done.stdout
    assert "undefined" not in done.stdout
    printed = re.sub(r"\)-?\d+\(", " ", Path("paper.pdf").read_text("latin-1"))  # words as they are on the page
    assert "from 79.5 up to 84.5 with 3 seeds" in printed and "With 82.0%" in printed


@needs_latex
def test_a_manuscript_that_names_an_absent_cell_does_not_compile(folder: Path) -> None:
    written(plan(US3L))
    read = r"\documentclass{article}\input{results/tiny/tables/main.macros.tex}"
    done = compiled(rf"{read}\begin{{document}}\cellof{{tiny/main}}{{US3L}}{{0.3x}}\end{{document}}")
    assert done.returncode == 1
    assert "! Package us3l Error: No table has tiny/main, US3L, 0.3x, text." in done.stdout
