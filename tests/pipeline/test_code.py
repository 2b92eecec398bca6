"""What an edit makes stale: a stage computes with its own module and what that imports outside the pipeline."""

import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from project import ROOT, Project, params

from us3l.pipeline.code import STAGES, code
from us3l.utils import source

EVALUATIONS = {"linear", "features-linear", "knn", "finetune"}
TRAINED = {"linear", "features-linear", "finetune"}
FIGURES = {f"figure {kind}" for kind in ("accuracy", "agreement", "training", "views", "embeddings")}
ALL = {"prepare", "pretrain", "calibrate", *EVALUATIONS, "table", "export", *FIGURES}
IMAGES = {"figure views", "figure embeddings"}
NETWORKS = {"pretrain", "calibrate", *EVALUATIONS, "export"}

# The stages that an edit of a module makes stale.
STALE = {
    "utils/errors": ALL,
    "utils/records": ALL,
    "utils/philox": NETWORKS | IMAGES,
    "utils/distributed": {"pretrain"},
    "utils/launch": set(),
    "params/schema": ALL - {"figure accuracy", "figure agreement"},
    "params/dataset": {"prepare", *NETWORKS, *IMAGES},
    "params/sampling": {*NETWORKS, "table", "figure training"},
    "params/protocols/calibration": {"calibrate", *EVALUATIONS},
    "params/protocols/trained": TRAINED,
    "params/protocols/linear": {"linear", "features-linear", "finetune"},
    "params/protocols/knn": {"knn"},
    "params/protocols/finetune": {"finetune"},
    "params/protocols/protocol": set(),
    "params/study": {"table"},
    "params/params": set(),
    "params/references": set(),
    "params/reading": set(),
    "deployment/network": {"export"},
    "deployment/card": {"export"},
    "deployment/latency": set(),
    "data/sources/cifar": {"prepare"},
    "data/store": {"prepare", *NETWORKS, *IMAGES},
    "data/augment/views": NETWORKS | IMAGES,
    "data/stream": {"pretrain"},
    "models/backbones/resnet": {*NETWORKS, "figure embeddings"},
    "models/published/matching": {"pretrain"},
    "models/published/summary": set(),
    "models/heads": {"pretrain"},
    "models/slimmable": {"pretrain", "calibrate", *EVALUATIONS},
    "models/folding": {"linear", "features-linear", "knn", "export"},
    "losses/embeddings": {"pretrain"},
    "losses/relations": {"pretrain"},
    "training/step": {"pretrain"},
    "training/trainer": {"pretrain"},
    "training/lr_schedule": {"pretrain", *TRAINED},
    "evaluation/calibration": {"calibrate"},
    "evaluation/features": {*EVALUATIONS, "figure embeddings"},
    "evaluation/classifier": TRAINED,
    "evaluation/linear": {"linear"},
    "evaluation/features_linear": {"features-linear"},
    "evaluation/knn": {"knn"},
    "evaluation/finetune": {"finetune"},
    "evaluation/metrics": EVALUATIONS,
    "evaluation/monitor": set(),
    "pipeline/plan/run": set(),
    "pipeline/plan/plan": set(),
    "pipeline/provenance": set(),
    "pipeline/verify/levels": set(),
    "pipeline/dvc": set(),
    "pipeline/watching/course": set(),
    "pipeline/watching/monitor": set(),
    "pipeline/watching/wording": set(),
    "pipeline/tables/formats": {"table"},
    "pipeline/stages/prepare": {"prepare"},
    "pipeline/stages/pretrain": {"pretrain"},
    "pipeline/stages/calibrate": {"calibrate"},
    "pipeline/stages/evaluate": EVALUATIONS,
    "pipeline/stages/table": {"table"},
    "pipeline/stages/export": {"export"},
    "pipeline/stages/figure": FIGURES,
    "pipeline/figures/style": FIGURES,
    "pipeline/figures/training": {"figure training"},
    "pipeline/deploy": {"export"},
    "pipeline/plan/export": set(),
    "cli/make": set(),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the package whose modules the tests edit; what was not edited is parsed once."""
    folder = tmp_path_factory.mktemp("copy") / "us3l"
    shutil.copytree(ROOT / "us3l", folder)
    read = source._read.__wrapped__
    parse = cache(lambda path, text: read(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_PACKAGE", folder)
        patch.setattr(source, "_read", lambda path: parse(path, path.read_text()))
        source.closure.cache_clear()
        yield folder
    source.closure.cache_clear()


@pytest.fixture
def edited(package: Path) -> Iterator[Callable[[str], None]]:
    """Add a statement to a module of the copy; it is taken away again."""
    before: dict[Path, str] = {}

    def edit(module: str) -> None:
        path = package / f"{module}.py"
        before[path] = path.read_text()
        path.write_text(f"{before[path]}\nEDITED = True\n")

    yield edit
    for path, text in before.items():
        path.write_text(text)


def test_the_table_has_every_stage_and_room() -> None:
    assert set(STAGES) == ALL
    rooms = {path.name for path in (ROOT / "us3l").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {module.partition("/")[0] for module in STALE} == rooms


@pytest.mark.parametrize("module", STALE)
def test_an_edit_makes_those_stages_stale_that_compute_with_the_module(
    edited: Callable[[str], None], module: str
) -> None:
    before = {stage: code(stage) for stage in STAGES}
    edited(module)
    assert {stage for stage in STAGES if code(stage) != before[stage]} == STALE[module]


# --- both tools, in a small project with a package of its own -------------------------------------------------------


class Workshop(Project):
    """A built project and a copy of the package, under Snakemake and DVC."""

    def stale(self) -> tuple[set[str], set[str]]:
        """The stages that Snakemake would run, and those that DVC would once the plan is written."""
        pending = self.must("snakemake", "--cores", "1", "--dry-run", "--quiet", "rules")
        rules = {rule.partition("_")[0] for rule in re.findall(r"^([\w-]+) +\d+$", pending, re.MULTILINE)}
        self.must("us3l", "plan", "--write")
        changed = re.findall(r"^(?:\w+-)?([\w-]+)@[\w-]+:$", self.must("dvc", "status"), re.MULTILINE)
        return rules - {"plan", "all", "total"}, {name.replace("_", "-") for name in changed}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    content = params(epochs=1)
    content["protocols"]["near"] = {"kind": "knn"}
    content["datasets"]["digits"]["source"]["test_fraction"] = 0.85  # more images than neighbours
    study = content["studies"]["tiny"]
    study["runs"]["near"] = {"kind": "reuse", "weights_from": "us3l", "dataset": "digits", "protocol": "near"}
    study["exports"] = {"edge": {"run": "us3l", "widths": [0.25], "formats": []}}
    folder = tmp_path_factory.mktemp("workshop")
    made = Workshop(folder, content)
    made.with_workflow("us3l", ".dvcignore")
    made.environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}  # edits follow within a second
    made.must("dvc", "init", "--no-scm", "--quiet")
    made.must("us3l", "dvc")
    made.must("snakemake", "--cores", "2", "--quiet", "host")
    assert made.stale() == (set(), set())
    return made


@pytest.mark.parametrize(
    ("defining", "old", "new", "stale"),
    [
        ("class Table(", "    title: ", "    note: str = 'none'\n    title: ", {"table"}),
        ("class Study(", "    seeds: ", "    note: str = 'none'\n    seeds: ", {"table"}),
        ("class Knn(", "= 200", "= 100", {"knn"}),
        (
            "def nt_xent(",
            "temperature\n",
            "temperature * 1\n",
            {"pretrain", "calibrate", "linear", "knn", "table", "export"},
        ),
        ("def model_card(", "config: ", "*, config: ", {"export"}),
    ],
    ids=["an option of tables", "a field of studies", "a default of kNN", "a loss", "the card of exports"],
)
def test_both_tools_make_again_what_an_edit_concerns_and_nothing_else(
    workshop: Workshop, defining: str, old: str, new: str, stale: set[str]
) -> None:
    [path] = [path for path in (workshop.folder / "us3l").rglob("*.py") if defining in path.read_text()]
    before = path.read_text()
    start = before.index(defining)
    path.write_text(before[:start] + before[start:].replace(old, new, 1))
    by_snakemake, by_dvc = workshop.stale()
    path.write_text(before)
    first = {"pretrain"} if "pretrain" in stale else stale
    assert by_snakemake == stale
    assert first <= by_dvc <= stale
