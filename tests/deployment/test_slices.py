"""`us3l slices` and `us3l choose`: what each width costs, and the widest that fits a budget."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from us3l.deployment import latency
from us3l.params.reading import load
from us3l.pipeline.choose import Budget, candidates, parse_budget, widest_that_fits
from us3l.pipeline.deploy import DeployedRun
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.slices import Slice, measure, three_digits
from us3l.utils.errors import UserError
from us3l.utils.records import read_record
from us3l.utils.width_list import parse_widths

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def short(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements in the project are short."""
    monkeypatch.setattr(latency, "SECONDS", 0.0)


def deployed(run: str = "us3l") -> DeployedRun:
    plan = Plan(load(Path("params.yaml")))
    return DeployedRun(plan, plan.run("tiny", run), 0, torch.device("cpu"))


def test_a_slice_has_the_records_counts_and_accuracy_and_the_files_size(us3l: Command) -> None:
    record = read_record(Path("results/tiny/linear/us3l/seed0-w025.json"))
    assert us3l("export", "tiny", "us3l", "0", "--width", "0.25", "--formats", "", "--out", "out")[0] == 0
    found = measure(deployed(), 0.25, batches=())
    assert (found.parameters, found.macs) == (record["parameters"], record["macs"])
    assert (found.top1, found.interval) == (record["top1"], record["interval"])
    assert found.bytes == Path("out/w025/model.safetensors").stat().st_size
    assert found.channels == [8, 16, 32]


def test_slices_are_a_table_a_json_and_a_csv(us3l: Command) -> None:
    code, output, _ = us3l("slices", "tiny", "us3l", "--widths", "0.25:0.75:0.25", "--out", "out")
    assert code == 0
    record = read_record(Path("results/tiny/linear/us3l/seed0-w025.json"))
    assert "not evaluated" in output and f"{record['top1']:.1f} [" in output
    assert "One file of " in output and " instead of 3 files of " in output
    made = json.loads(Path("out/slices.json").read_text(encoding="utf-8"))
    assert [each["width"] for each in made["slices"]] == [0.75, 0.5, 0.25]
    assert {"hardware", "versions"} < made.keys()
    for each in made["slices"]:
        for timed in each["latency_ms"].values():
            assert 0 < timed["p5"] <= timed["median"] <= timed["p95"] and timed["calls"] >= latency.FEWEST
    frame = pd.read_csv("out/slices.csv")
    assert frame["parameters"].tolist() == [each["parameters"] for each in made["slices"]]
    assert {"pytorch_batch1_ms", "pytorch_batch64_ms"} < set(frame.columns)


def test_files_follow_the_number_of_parameters() -> None:
    sizes = {width: measure(deployed(), width, ()) for width in (1.0, 0.75, 0.5)}
    for each in sizes.values():
        statistics = 2 * 4 * sum(each.channels)
        assert each.bytes == pytest.approx(4 * each.parameters + statistics, rel=0.03)


@pytest.mark.parametrize(
    "budget",
    [{"macs": 1e6}, {"parameters": 60_000}, {"size": 400_000}, {"macs": 9e5, "size": 300_000}, {"macs": 1e9}],
    ids=str,
)
def test_bisection_finds_what_a_search_of_all_widths_finds(budget: dict[str, float]) -> None:
    run, wanted = deployed(), Budget(budget)
    widths = candidates(run)
    assert (widths[0], widths[-1], len(widths)) == (0.25, 1.0, 76)
    every = {width: measure(run, width, ()) for width in [*widths[::3], 1.0]}
    asked: list[float] = []

    def measured(width: float) -> Slice:
        asked.append(width)
        return every[width]

    found = widest_that_fits([*every], measured, wanted)
    assert found.width == max(width for width, each in every.items() if wanted.fits(each))
    assert len(asked) <= 7


def test_the_widest_network_that_fits_is_told_with_its_costs_and_how_to_get_it(us3l: Command) -> None:
    code, output, _ = us3l("choose", "tiny", "us3l", "--macs", "1M")
    assert code == 0
    first, second = output.splitlines()
    width = float(first.split()[1].rstrip(":"))
    assert measure(deployed(), width, ()).macs <= 1e6 < measure(deployed(), width + 0.01, ()).macs
    assert first.endswith("; top-1 not evaluated")
    assert second == f"us3l export tiny us3l 0 --width {width:g}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a budget: --latency 5ms, --macs 50M, --parameters 1M or --size 4MB, or several of them"),
        (("--macs", "1"), "nothing fits: the narrowest network, of width 0.25, has macs "),
        (("--size", "4"), "--size 4: give a number with one of the units B, kB, MB, GB"),
        (("--latency", "-5ms"), "--latency -5ms: give a number with one of the units ms, us, s"),
        (("--macs", "1e6"), "--macs 1e6: give a number with one of the units none, k, M, G"),
    ],
)
def test_a_budget_that_is_none_or_too_small_is_said(us3l: Command, arguments: tuple[str, ...], said: str) -> None:
    code, _, errors = us3l("choose", "tiny", "us3l", *arguments)
    assert code == 2 and errors.startswith(f"us3l: {said}") and errors.count("\n") == 1


def test_a_run_that_is_not_trained_has_no_slices(us3l: Command) -> None:
    code, _, errors = us3l("slices", "tiny", "missing")
    assert code == 2
    assert "checkpoints/missing/seed0.safetensors: not trained yet; `us3l pretrain tiny missing 0` trains it" in errors


@pytest.mark.parametrize(
    ("text", "widths"), [("0.25:1.0:0.25", [0.25, 0.5, 0.75, 1.0]), ("0.5", [0.5]), ("1,.3", [1, 0.3])]
)
def test_widths_are_a_range_or_a_list(text: str, widths: list[float]) -> None:
    assert parse_widths(text) == widths


@pytest.mark.parametrize(
    "text", ["", "a", "0.25:1.0", "0.25:1:0", "1:0.25:0.1", "1:0:1", "0:1:1e-9", "nan:1:0.1", "0:inf:1", "0.25:1:1:1"]
)
def test_other_widths_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--widths"):
        parse_widths(text)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0241, "0.0241"), (35.45, "35.5"), (999.4, "999"), (999.6, "1,000"), (1813.56, "1,814")]
)
def test_numbers_have_no_exponents(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_units_are_read() -> None:
    budget = parse_budget(latency="5ms", macs="1.5G", parameters="2k", size="4 MB")
    assert budget.most == {"latency": 5.0, "macs": 1.5e9, "parameters": 2000.0, "size": 4e6}
