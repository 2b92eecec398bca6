"""Figures of a study: drawn from records, images and networks, the same each time, and readable."""

import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from project import Project, params

from us3l.evaluation.predictions import decode
from us3l.params.reading import load
from us3l.pipeline.figures import accuracy, agreement, embeddings, training, views
from us3l.pipeline.figures.style import look, row_style
from us3l.pipeline.plan.figure import FigurePlan
from us3l.pipeline.plan.plan import Plan
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

Command = Callable[..., tuple[int, str, str]]
DRAW = {each.__name__.rpartition(".")[2]: each.draw for each in (accuracy, agreement, training, views, embeddings)}
NAMES = ("accuracy-main", "agreement-main", "training", "views-digits", "embeddings")
FOLDER = Path("results/tiny/figures")


def content() -> dict[str, Any]:
    made = params(epochs=4)
    made["datasets"]["digits"]["source"]["test_fraction"] = 0.8
    study = made["studies"]["tiny"]
    study["widths"] = [1.0, 0.5, 0.25]
    study["runs"]["pixels"] = {"kind": "untrained", "dataset": "digits", "backbone": "pixels"}
    study["runs"]["pixels"]["resources"] = {"gpus": 0}
    rows = [("A label of $ome 50% & other_signs that is rather long", "us3l"), ("Pixels", "pixels")]
    study["tables"]["main"]["rows"] = [{"label": label, "runs": run} for label, run in rows]
    study["figures"] = [*DRAW]
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("built"), content()).with_workflow()
    project.must("snakemake", "--cores", "2", "--quiet")
    return project


@pytest.fixture
def plan(built: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of a copy of what Snakemake made, which is the current directory."""
    for name in ("data", "results"):
        shutil.copytree(built.folder / name, tmp_path / name)
    shutil.copy(built.folder / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Plan(load(Path("params.yaml")))


def drawn(plan: Plan, name: str) -> Figure:
    figure_plan: FigurePlan = plan.figure("tiny", name)
    with look():
        return DRAW[figure_plan.kind](figure_plan)


def test_snakemake_draws_them_and_leaves_nothing_to_do(built: Project) -> None:
    files = {path.name for path in (built.folder / FOLDER).iterdir()}
    assert files == {f"{name}.{suffix}" for name in NAMES for suffix in ("svg", "png", "json")}
    assert "Nothing to be done" in built.must("snakemake", "--cores", "2", "--dry-run")
    code, output = built.run("us3l", "verify", "--level", "1")
    assert code == 0, output


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_that_is_drawn_again_has_the_same_bytes(plan: Plan, us3l: Command, name: str) -> None:
    paths = [FOLDER / f"{name}.{suffix}" for suffix in ("svg", "png")]
    before = [path.read_bytes() for path in paths]
    assert us3l("figure", "tiny", name, "--force")[0] == 0
    assert [path.read_bytes() for path in paths] == before
    assert us3l("figure", "tiny", name)[1] == f"us3l figure tiny {name}: up to date; --force makes it again\n"


@pytest.mark.parametrize("name", NAMES)
def test_no_texts_of_a_figure_overlap(plan: Plan, name: str) -> None:
    figure = drawn(plan, name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    shown = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn_texts(figure)]
    touching = [(one, other) for (one, a), (other, b) in combinations(shown, 2) if a.padded(-1).overlaps(b.padded(-1))]
    assert touching == [] and len(shown) > 3
    frame = figure.bbox.padded(1)
    assert [text for text, box in shown if not (frame.contains(*box.min) and frame.contains(*box.max))] == []


def drawn_texts(figure: Figure) -> list[Text]:
    """All texts but those of ticks beyond an axis' ends, or of an axis that is off."""
    texts = {each for each in figure.findobj(Text) if each.get_visible() and each.get_text().strip()}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not (axes.axison and low <= tick.get_loc() <= high):
                    texts -= {tick.label1, tick.label2}
            if not axes.axison:
                texts -= {axis.label}
    return [*texts]


def test_the_accuracy_has_the_records_numbers(plan: Plan) -> None:
    by_width, by_cost = drawn(plan, "accuracy-main").axes
    [first, _] = by_width.containers
    records = [read_record(Path(f"results/tiny/linear/us3l/seed0-w{w}.json")) for w in ("100", "050", "025")]
    np.testing.assert_allclose(numbers(first.lines[0].get_ydata()), [record["top1"] for record in records])
    [segments] = first.lines[2]
    ends = [segment[:, 1] for segment in segments.get_segments()]
    np.testing.assert_allclose(ends, [record["interval"] for record in records], rtol=1e-9)
    [costs] = by_cost.containers
    np.testing.assert_allclose(numbers(costs.lines[0].get_xdata()), [each["macs"] / 1e6 for each in records], rtol=0.05)


def numbers(values: Any) -> list[float]:
    return [float(value) for value in values]


def test_agreement_is_the_share_of_images_with_the_same_class(plan: Plan) -> None:
    records = [read_record(Path(f"results/tiny/linear/us3l/seed0-w{w}.json")) for w in ("100", "025")]
    one, other = (decode(record["predictions"], record["n"]) for record in records)
    [fields, *_] = drawn(plan, "agreement-main").axes
    texts = [text.get_text() for text in fields.texts]
    assert texts[2] == texts[6] == f"{100 * np.mean(one == other):.0f}" and texts[0] == texts[4] == "100"


def test_a_trainings_curves_are_those_of_its_record(plan: Plan) -> None:
    loss, _, rate = drawn(plan, "training").axes
    epochs = read_record(Path("results/tiny/pretrain/us3l/seed0.json"))["epochs"]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [epoch["loss"][0] for epoch in epochs])
    np.testing.assert_allclose(rate.lines[0].get_ydata(), [epoch["lr"] for epoch in epochs])


def test_what_a_monitor_saw_is_shown_where_a_record_has_it(plan: Plan) -> None:
    path = Path("results/tiny/pretrain/us3l/seed0.json")
    seen = [{"epoch": n, "widths": [1.0, 0.25], "knn": [50.0, 40.0 + n], "rank": [3.0, 2.0]} for n in (0, 3)]
    write_record(path, {key: value for key, value in read_record(path).items() if key != "seal"} | {"monitor": seen})
    *_, neighbours, rank = drawn(plan, "training").axes
    assert [list(line.get_ydata()) for line in neighbours.lines] == [[50.0, 50.0], [40.0, 43.0]]
    assert list(rank.lines[0].get_ydata()) == [3.0, 3.0]


def test_the_sheet_has_the_images_themselves(plan: Plan) -> None:
    first = drawn(plan, "views-digits").axes[0].images[0].get_array()
    pixels = np.load("data/digits/train_images.npy")[0, :, :, 0] / 255
    np.testing.assert_allclose(first[:8], pixels, atol=1e-6)


def test_no_two_rows_look_alike() -> None:
    styles = [row_style(number) for number in range(70)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 70


def test_a_figure_that_was_edited_is_found(plan: Plan, us3l: Command) -> None:
    path = FOLDER / "training.svg"
    path.write_text(path.read_text().replace("</svg>", "<!-- better --></svg>"))
    code, output, _ = us3l("verify", "--level", "1")
    assert code == 1 and f"{path}: damaged: it was changed after it was written" in output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("training", "results/tiny/pretrain/us3l/seed0.json: no such file; the stage before this one makes it"),
        ("trainings", "params.yaml: the study 'tiny' has no figure 'trainings'; did you mean 'training'?"),
    ],
)
def test_what_cannot_be_drawn_is_said(plan: Plan, us3l: Command, name: str, said: str) -> None:
    Path("results/tiny/pretrain/us3l/seed0.json").unlink()
    code, _, errors = us3l("figure", "tiny", name)
    assert code == 2 and said in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"figures": ["accurate"]}, "figures.0: must be 'accuracy', 'agreement', 'training', 'views' or 'embeddings'"),
        ({"figures": ["views", "views"]}, "figures: ['views', 'views'] names a value twice; name each once"),
        ({"tables": {}}, "figures: accuracy shows a table, and the study has none; leave it out"),
        ({"figures": ["views"], "runs": {}, "tables": {}}, "figures: views shows a training, and the study has none"),
        ({"figures": ["embeddings"], "runs": {}, "tables": {}}, "figures: embeddings shows a run, and the study has"),
    ],
)
def test_figures_of_what_a_study_does_not_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = content()
    made["studies"]["tiny"] |= study
    Path("params.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(UserError) as error:
        load(Path("params.yaml"))
    assert str(error.value).startswith(f"params.yaml: studies.tiny.{said}")
