"""The report: made in a fresh clone, without running anything, and read in a real browser."""

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from project import ROOT, Project, params

from us3l.utils.records import read_record

WIDTHS = (1400, 400)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
TABLE, RESULT = Path("results/tiny/tables/main.json"), "results/tiny/tables/main.html"


def content() -> dict[str, Any]:
    made = params(epochs=1)
    study = made["studies"]["tiny"]
    study["seeds"] = [0, 1]
    label = "A label of <b>markup</b> & 50%"
    study["tables"]["main"]["rows"] = [{"label": label, "runs": "us3l"}, {"label": "Again", "runs": "us3l"}]
    study["figures"] = ["accuracy", "training"]
    return made


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone of a project whose results were made elsewhere, and put under git as .gitignore has it."""
    origin = Project(tmp_path_factory.mktemp("origin"), content()).with_workflow()
    shutil.copy(ROOT / ".gitignore", origin.folder)
    origin.must("snakemake", "--cores", "2", "--quiet")
    git(origin.folder, "init", "--quiet")
    git(origin.folder, "add", "--all")
    git(origin.folder, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message", "results")
    folder = tmp_path_factory.mktemp("clones") / "clone"
    git(origin.folder, "clone", "--quiet", ".", str(folder))
    return Project(folder, content())


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def report(clone: Project) -> tuple[str, Path]:
    """What Snakemake said, and the folder of the report, unpacked outside the clone."""
    said = clone.must("snakemake", "--report", "report.zip")
    folder = clone.folder.parent / "unpacked"
    zipfile.ZipFile(clone.folder / "report.zip").extractall(folder)
    return said, folder / "report"


@pytest.fixture(params=WIDTHS, ids=lambda width: f"{width} pixels")
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Browser, int]]:
    with Browser(tmp_path) as opened:
        yield opened, request.param


def test_a_fresh_clone_makes_it_without_data_or_weights_and_runs_nothing(
    clone: Project, report: tuple[str, Path]
) -> None:
    said, folder = report
    assert said.splitlines()[-1] == "Report created." and "Missing metadata" not in said
    assert git(clone.folder, "status", "--porcelain") == "?? report.zip\n"
    assert not [path for path in clone.folder.rglob("*") if path.suffix in (".npy", ".safetensors")]
    assert not [*(clone.folder / "logs").rglob("*")], "no job ran"
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names == {"report.html", "main.html", "accuracy-main.svg", "training.svg"}


def test_results_that_are_not_here_are_named(clone: Project, tmp_path: Path) -> None:
    shutil.copytree(clone.folder, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare/results/tiny/tables")
    project = Project(tmp_path / "bare", content())
    code, said = project.run("snakemake", "--report", "report.zip")
    assert code == 1 and f"File {RESULT} marked for report but does not exist." in said


@needs_chromium
def test_the_landing_page_has_the_hours_of_each_stage_and_leads_to_every_result(
    clone: Project, report: tuple[str, Path], browser: tuple[Browser, int]
) -> None:
    (page, width), folder = browser, report[1]
    page.open(folder / "report.html", width)
    page.wait("!!document.querySelector('.prose table') && !!document.querySelector('.marks')")
    text = page.evaluate("document.querySelector('.prose').innerText")
    trained = [read_record(path) for path in sorted(clone.folder.glob("results/tiny/pretrain/us3l/*.json"))]
    hours = f"{sum(record['seconds'] for record in trained) / 3600:.3g}"
    row = re.search(r"pretrain\s+(\S+ of \S+)\s+(\S+)\s+(\S+)", text)
    assert row and row.groups() == ("2 of 2", hours, "0")
    page.evaluate("[...document.querySelectorAll('.prose a')].find(a => a.innerText == 'tiny').click()")
    page.wait("document.querySelector('nav').innerText.includes('Figures')")
    results = json.loads(page.evaluate("JSON.stringify(Object.values(results))"))
    assert len(results) == 3
    assert [each["data_uri"] for each in results if not (folder / each["data_uri"]).is_file()] == []
    assert all(each["caption"].strip() for each in results)
    for place in ("Workflow", "Statistics", "About"):
        page.evaluate("app.setView({navbarMode: 'menu'})")
        page.wait("document.querySelector('nav').innerText.includes('Statistics')")
        page.evaluate(f"[...document.querySelectorAll('nav a')].find(a => a.innerText == '{place}').click()")
    links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert [link for link in links if not re.match("#|https://|javascript:", link or "#")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.errors == []


@needs_chromium
def test_a_tables_cells_open_to_the_numbers_of_its_record(
    clone: Project, report: tuple[str, Path], browser: tuple[Browser, int]
) -> None:
    (page, width), record = browser, read_record(clone.folder / TABLE)
    [path] = report[1].rglob("main.html")
    page.open(path, width)
    compared = 0
    for number, cell in enumerate(record["cells"]):
        button = f"document.querySelectorAll('button')[{number}]"
        assert page.evaluate(f"{button}.innerText") == f"{cell['mean']:.1f} ± {cell['ci95']:.1f}"
        page.evaluate(f"{button}.click()")
        opened = f"document.getElementById({button}.getAttribute('popovertarget'))"
        page.wait(f"{opened}.matches(':popover-open')")
        text = page.evaluate(f"{opened}.innerText")
        for source in cell["sources"]:
            evaluation = record["records"][source["files"][0]]
            low, high = evaluation["interval"]
            seed = f"{source['seed']}\t{source['top1']:.2f}\t[{low:.1f}, {high:.1f}] of {evaluation['n']:,}"
            assert seed in text and all(file in text for file in source["files"])
            assert f"{evaluation['parameters']:,} parameters, {evaluation['macs']:,} multiply" in text
            compared += 5
        assert f'us3l verify "tiny/main:{number // 2 + 1}:{cell["width"]:g}x" --level 3' in text
        assert page.evaluate(f"{opened}.getBoundingClientRect().right") <= width
        page.evaluate(f"{opened}.hidePopover()")
    assert compared >= 10
    assert page.evaluate("document.querySelector('td').innerText") == "A label of <b>markup</b> & 50%"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.errors == []
