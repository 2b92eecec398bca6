"""What README and docs show works as it stands there, and the files that hosts and tools read name what exists."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from pre_commit.clientlib import load_config as load_hooks
from project import ROOT

from us3l.cli import app
from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import save_network
from us3l.params.reading import load, read
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.plan.table import TableJob

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    ROOT / "us3l/pipeline/new_project/templates/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NOTEBOOK = ROOT / "docs/notebooks/accuracy-against-macs.ipynb"
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group of commands


def snippet(page: str, language: str, holding: str) -> str:
    """The block of code that holds these words."""
    text = (ROOT / page).read_text()
    [found] = [code for code in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if holding in code]
    return found


def test_a_network_is_loaded_by_its_checkpoint_and_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = Backbone("small-resnet", 1).build(0.25).eval()
    views = {"views": {"normalize": {"mean": [0.5], "std": [0.25]}}}
    results = Path("results/digits")
    save_network(results / "networks/us3l/seed0-w025.safetensors", small, "small-resnet", 0.25, 1, {"params": views})
    (results / "checkpoints/us3l").mkdir(parents=True)
    (results / "checkpoints/us3l/seed0.safetensors").touch()
    names: dict[str, Any] = {"images": torch.rand(2, 1, 8, 8)}
    exec(snippet("docs/shipping.md", "python", "us3l.load"), names)
    assert torch.equal(names["logits"], small((names["images"] - 0.5) / 0.25))
    assert [*names["maps"]] == ["layer1", "layer2", "layer3"]
    torch.testing.assert_close(names["faster"](names["images"]), names["logits"], rtol=1e-4, atol=1e-4)
    shown: dict[str, Any] = {}
    exec(snippet("README.md", "python", "us3l.load"), shown)
    assert torch.equal(shown["network"](names["images"]), names["logits"])


def test_ones_own_images_are_added_to_the_params_file_as_it_is(tmp_path: Path) -> None:
    content = read(ROOT / "params.yaml")
    for key, added in yaml.safe_load(snippet("docs/tutorial.md", "yaml", "cats-view")).items():
        assert not content[key].keys() & added.keys(), "it would take the place of what is there"
        content[key] |= added
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    plan = Plan(load(tmp_path / "params.yaml"))
    run = plan.run("cats", "us3l")
    assert (run.data.name, run.widths, run.seeds) == ("cats", (1.0, 0.5, 0.25), (0,))
    assert TableJob(plan.table("cats", "main")).inputs


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def commands_shown(text: str) -> Iterator[list[str]]:
    """The words of every us3l command, in blocks and within lines, without comments and after pipes and `&&`."""
    blocks = re.findall(r"^```(?:sh|bash|text)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"(?<!`)`(us3l [^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*"\n".join(blocks).splitlines(), *inline]:
        for command in re.split(r"&&|\|", line):
            if command.strip().startswith("us3l "):
                yield shlex.split(command, comments=True)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_has_the_options_that_it_is_given(page: Path) -> None:
    for name, *arguments in commands_shown(page.read_text()):
        if name.startswith("--"):
            assert name in ("--help", "--version")
            continue
        assert name in COMMANDS, f"us3l {name}"
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert given <= options, f"us3l {name}"


def test_commands_are_found_in_blocks_and_in_lines() -> None:
    text = (
        "See `us3l why FILE` and `us3l.load`.\n```\ncd x && us3l plan --cost   # us3l nothing\nls | us3l commit\n```\n"
    )
    assert [*commands_shown(text)] == [["plan", "--cost"], ["commit"], ["why", "FILE"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_shown_exists(page: Path) -> None:
    blocks = "\n".join(re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL))
    shown = re.findall(r"^make ([a-z]+)", blocks, re.MULTILINE) + re.findall(r"`make ([a-z ]+)`", page.read_text())
    assert {word for words in shown for word in words.split()} <= TARGETS


def test_every_table_is_on_the_page_of_studies_with_its_rows_and_trainings() -> None:
    plan = Plan(load(ROOT / "params.yaml"))
    makers = {path: job for job in jobs(plan, plan.studies) for path in job.outputs}

    def behind(job: Job) -> set[Job]:
        found, waiting = set(), [job]
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting += [makers[path] for path in each.inputs if path in makers]
        return found

    trainings = {
        name: {
            job
            for job in behind(TableJob(table))
            if isinstance(job, RunStage) and job.stage == "pretrain" and job.run.run.kind == "pretrain"
        }
        for name, table in plan.tables.items()
    }
    page = (ROOT / "docs/studies.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| (.+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    expected = [
        (*name, table.table.title, str(len(table.table.rows)), str(len(trainings[name])))
        for name, table in plan.tables.items()
    ]
    assert rows == expected
    assert f"all studies together have {len(set().union(*trainings.values()))}." in page


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_the_notebook_says_in_a_sentence_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs/notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs/notebooks")
    with pytest.raises(SystemExit) as end:
        exec("".join(cells("code")[0]["source"]), {})
    assert end.value.code == "results/digits/checkpoints/us3l/seed0.safetensors is missing: run `make demo` first"


def test_the_notebook_is_committed_without_what_it_printed() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))


@pytest.fixture
def small_site(tmp_path: Path) -> Path:
    """A repository of a README, a page and a module, with the project's hook and link checks."""
    settings = (ROOT / "mkdocs.yml").read_text()
    start, end = settings.index("\ntheme:"), settings.index("\nmarkdown_extensions:")
    short = settings[:start] + "\ntheme: {name: mkdocs}\n" + settings[end:]
    (tmp_path / "mkdocs.yml").write_text(short[: short.index("\nnav:")].replace("\nextra_css", "\n# extra_css"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/repository.py").write_text((ROOT / "docs/repository.py").read_text())
    (tmp_path / "docs/page.md").write_text("# Page\n\n[code](../code.py), [start](../README.md#two-words)\n")
    (tmp_path / "code.py").write_text("x = y[a](README)\n")
    (tmp_path / "README.md").write_text("# Start\n\n## Two words\n\n[page](docs/page.md)\n")
    return tmp_path


def build_site(folder: Path) -> None:
    build(load_config(str(folder / "mkdocs.yml"), strict=True))


def test_files_that_pages_link_to_are_pages_of_the_site(small_site: Path) -> None:
    build_site(small_site)
    assert 'href="page.html"' in (small_site / "site/index.html").read_text()
    page = (small_site / "site/page.html").read_text()
    assert 'href="repository/code.py.html"' in page and 'href="index.html#two-words"' in page
    assert "README" in (small_site / "site/repository/code.py.html").read_text()
    assert not (small_site / "site/repository.py").exists()


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("docs/page.md", "../gone.py"),
        ("docs/page.md", "other.md"),
        ("docs/page.md", "../README.md#three-words"),
        ("README.md", "docs/other.md"),
        ("README.md", "docs/page.md#nowhere"),
    ],
)
def test_a_link_that_leads_nowhere_ends_the_build(small_site: Path, file: str, link: str) -> None:
    with (small_site / file).open("a") as page:
        page.write(f"\n[link]({link})\n")
    with pytest.raises(Abort, match="1 warnings in strict mode"):
        build_site(small_site)


def test_hosts_and_tools_are_given_files_that_they_can_read() -> None:
    """The catalogue's and the templates' keys, and hooks that pre-commit takes."""
    load_hooks(ROOT / ".pre-commit-config.yaml")
    catalogue = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert catalogue["usage"]["software-stack-deployment"] == {"conda": True}
    assert (ROOT / "config/README.md").is_file() and (ROOT / "workflow/Snakefile").is_file()
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= template.keys()
            assert all(each["attributes"]["label"] for each in template["body"])


def test_continuous_integration_runs_all_of_ci_run() -> None:
    script = (ROOT / ".ci/run").read_text()
    [targets] = re.findall(r"set -- (.*)", script)
    [job] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    parts = job["strategy"]["matrix"]["part"]
    assert sorted(" ".join(parts).split()) == sorted(targets.split())
    assert set(targets.split()) <= TARGETS
    assert job["steps"][-1]["run"] == ".ci/run ${{ matrix.part }}"
