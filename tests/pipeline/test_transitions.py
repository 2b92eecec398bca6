"""Snakemake and DVC over one project, in turn: what the one has made, the other does not make again.

The project is this one, with two runs and stand-ins for the stages that compute (tests/support/stand_ins).
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import REPRO, SNAKEMAKE, Checkout, copy, lay_out
from waiting import until

from us3l.utils.records import read_record, write_record

RESULTS = Path("results/digits")
CHECKPOINT = RESULTS / "checkpoints/us3l/seed0.safetensors"
OF_US3L = ["calibrate us3l", "linear us3l", "pretrain us3l"]


def temperature(value: float) -> Callable[[Any], None]:
    return lambda params: params["studies"]["digits"]["runs"]["us3l"]["method"].update(temperature=value)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("laid_out") / "project").folder


@pytest.fixture
def checkout(tmp_path: Path, laid_out: Path) -> Checkout:
    """A project in which nothing is made."""
    return copy(laid_out, tmp_path / "project")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, laid_out: Path) -> tuple[Path, list[str]]:
    """The project as Snakemake has made it, and the jobs that ran for it."""
    made = copy(laid_out, tmp_path_factory.mktemp("finished") / "project")
    return made.folder, made.ran(*SNAKEMAKE)


@pytest.fixture
def built(tmp_path: Path, finished: tuple[Path, list[str]]) -> Checkout:
    """A copy of the project as Snakemake has made it."""
    return copy(finished[0], tmp_path / "project")


def test_dvc_does_not_make_again_what_snakemake_has_made(finished: tuple[Path, list[str]]) -> None:
    of_both = [*OF_US3L, *(job.replace("us3l", "us-simsiam") for job in OF_US3L)]
    folder, ran = finished
    assert ran == sorted([*of_both, "prepare digits"])
    assert Checkout(folder).clean()


def test_snakemake_does_not_make_again_what_dvc_has_made_or_checked_out(built: Checkout) -> None:
    first = built.commit()

    built.edit(temperature(0.4))
    assert built.ran(*REPRO) == OF_US3L
    assert built.clean()
    second = built.commit()
    numbers = built.run("dvc", "metrics", "diff", first, second)
    assert set(re.findall(r"main\.metrics\.yaml +(\S+)", numbers)) == {"us3l.1x.mean", "us3l.0.25x.mean"}
    named = built.run("dvc", "params", "diff", first, second)
    assert re.search(r"digits-pretrain@us3l\.params\.run\.method\.temperature +0\.5 +0\.4\n", named)

    for value in (0.5, 0.4):
        built.edit(temperature(value))
        assert built.ran(*REPRO) == OF_US3L
        assert built.clean()

    built.git("stash", "--quiet")
    for commit in (first, second):
        built.switch(commit)
        assert built.clean()


def test_a_missing_file_is_made_again_or_checked_out_and_a_clone_has_all_of_it(built: Checkout, tmp_path: Path) -> None:
    (built.folder / CHECKPOINT).unlink()
    assert built.dirty() == {"digits-pretrain@us3l", "digits-calibrate@us3l"}
    assert built.pending() == {"pretrain": 1, "calibrate": 1, "linear": 1, "table": 1}
    assert built.ran(*REPRO) == ["pretrain us3l"], "the same bytes again: nothing that reads them has to run"
    assert built.clean()

    (built.folder / CHECKPOINT).unlink()
    built.run("dvc", "checkout", "--quiet")
    assert built.clean()

    built.commit()
    built.run("dvc", "push", "--quiet")
    built.git("clone", "--quiet", str(built.folder), str(tmp_path / "clone"))
    clone = Checkout(tmp_path / "clone")
    clone.run("dvc", "pull", "--quiet")
    assert clone.clean()
    assert clone.ran(*REPRO) == []
    assert clone.ran(*SNAKEMAKE) == []


def flip(path: Path) -> None:
    """Change one bit of the last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_found_by_both_and_mended(built: Checkout) -> None:
    flip(built.folder / CHECKPOINT)
    assert built.dirty() == {"digits-pretrain@us3l", "digits-calibrate@us3l"}
    assert built.pending() == {"pretrain": 1, "calibrate": 1, "linear": 1, "table": 1}
    code, output = built.try_("us3l", "calibrate", "digits", "us3l", "0")
    assert code == 2
    assert f"{CHECKPOINT}: damaged: it was changed after it was written" in output
    built.run("us3l", "commit")
    assert "digits-pretrain@us3l" in built.dirty(), "the damaged file is not taken into dvc.lock"
    assert built.ran(*SNAKEMAKE) == OF_US3L
    assert built.clean()
    flip(built.folder / CHECKPOINT)
    assert built.ran(*REPRO) == ["pretrain us3l"], "the same bytes again: nothing that reads them has to run"
    assert built.clean()

    flip(built.folder / "data/digits/train_images.npy")
    assert "prepare@digits" in built.dirty()
    assert built.pending() == {"prepare": 1, "pretrain": 2, "calibrate": 2, "linear": 2, "table": 1}
    assert built.ran(*REPRO) == ["prepare digits"], "the same bytes again: nothing that reads them has to run"
    assert built.clean()

    table = built.folder / RESULTS / "tables/main.md"
    flip(table)
    assert built.dirty() == {"digits-table@main"}
    assert built.ran(*REPRO) == []
    assert built.clean()


def test_what_was_made_by_hand_is_made_again_after_an_edit_as_if_snakemake_had_made_it(built: Checkout) -> None:
    for stage in ("pretrain", "calibrate", "linear"):
        built.run("us3l", stage, "digits", "us3l", "0", "--force")
    built.run("us3l", "table", "digits", "main")
    shutil.rmtree(built.folder / ".snakemake/metadata")
    built.run("us3l", "commit")
    assert built.dirty() == set()
    assert built.pending().keys() <= {"plan"}
    built.edit(temperature(0.4))
    assert built.pending() == {"plan": 1, "pretrain": 1, "calibrate": 1, "linear": 1, "table": 1}
    assert built.ran(*SNAKEMAKE) == OF_US3L
    assert built.clean()


def test_content_counts_and_dates_do_not(built: Checkout) -> None:
    for number, path in enumerate(sorted((built.folder / "results").rglob("*.*"), reverse=True)):
        os.utime(path, (number, number))
    assert built.clean()
    other = built.folder / RESULTS / "checkpoints/us-simsiam/seed0.safetensors"
    shutil.copy2(other, built.folder / CHECKPOINT)
    assert built.pending() == {"pretrain": 1, "calibrate": 1, "linear": 1, "table": 1}
    assert built.dirty() >= {"digits-pretrain@us3l"}
    assert built.ran(*SNAKEMAKE) == OF_US3L
    assert built.clean()


def test_an_edit_of_code_runs_the_stages_that_import_it_and_a_comment_none(built: Checkout) -> None:
    (built.folder / "us3l" / "notes.txt").write_text("Not code.")
    assert built.clean()
    built.append("evaluation/linear.py", "\n\n# A comment.\n")
    assert built.dirty() == {"plan"}
    assert built.pending() == {"plan": 1}
    assert built.ran(*SNAKEMAKE) == []
    assert built.clean()
    built.append("pipeline/stages/calibrate.py", "\n\n# Another.\n")
    assert built.ran(*REPRO) == []
    assert built.clean()

    built.append("evaluation/linear.py", "SCALE = 50\n")
    assert built.pending() == {"plan": 1, "linear": 2, "table": 1}
    assert built.ran(*REPRO) == ["linear us-simsiam", "linear us3l"]
    assert built.clean()
    built.append("evaluation/linear.py", "SCALE = 25\n")
    assert built.ran(*SNAKEMAKE) == ["linear us-simsiam", "linear us3l"]
    assert built.clean()


def test_resources_and_a_study_that_is_not_built_change_nothing(built: Checkout) -> None:
    built.edit(lambda params: params["studies"]["digits"]["runs"]["us3l"]["resources"].update(threads=2))
    built.edit(lambda params: params["studies"]["digits-precision"].update(seeds=[7]))
    assert built.ran(*REPRO) == []
    assert built.clean()


def test_a_failed_build_leaves_what_it_finished_to_both(checkout: Checkout) -> None:
    module = checkout.folder / "us3l/pipeline/stages/calibrate.py"
    original = module.read_text()
    module.write_text(original.replace("    log(", "    assert run.name != 'us3l'\n    log("))
    code, _ = checkout.try_(*SNAKEMAKE, "--keep-going")
    assert code != 0
    assert checkout.dirty() == {"digits-calibrate@us3l", "digits-linear@us3l", "digits-table@main"}
    module.write_text(original)
    jobs = ["calibrate us-simsiam", "calibrate us3l", "linear us-simsiam", "linear us3l"]
    assert checkout.ran(*REPRO) == jobs
    assert checkout.clean()


def test_verify_holds_after_both_tools_and_finds_what_dvc_lock_does_not_know(built: Checkout) -> None:
    verify = ("us3l", "verify", "main")
    assert built.run(*verify).count("holds") == 3
    for name, was, forged, said in (
        (
            "results/plan.json",
            '"seeds": [',
            '"seeds": [9,',
            "results/plan.json: digits-linear@us3l is not as params and",
        ),
        (
            "dvc.yaml",
            "results/digits/linear/",
            "results/digits/knn/",
            "dvc.yaml: digits-linear@us3l has other files than",
        ),
    ):
        true = (built.folder / name).read_text()
        (built.folder / name).write_text(true.replace(was, forged))
        code, output = built.try_(*verify)
        assert code == 1 and said in output
        (built.folder / name).write_text(true)
    path = built.folder / RESULTS / "linear/us3l/seed0-w025.json"
    forged = read_record(path) | {"macs": 1}
    write_record(path, {key: value for key, value in forged.items() if key != "seal"})
    built.run("us3l", "table", "digits", "main")
    code, output = built.try_(*verify)
    assert code == 1
    assert (
        output.count("holds") == 2 and "digits-linear@us3l: changed outs: results/digits/linear/us3l modified" in output
    )


def seeds(*values: int) -> Callable[[Any], None]:
    return lambda params: params["studies"]["digits"].update(seeds=list(values))


def test_a_stage_of_which_one_seed_is_stale_or_damaged_is_not_taken_for_done(built: Checkout) -> None:
    built.edit(seeds(0, 1))
    built.run(*SNAKEMAKE)
    built.edit(temperature(0.4))
    built.run(*SNAKEMAKE, "--", str(RESULTS / "pretrain/us3l/seed1.json"))
    assert "digits-pretrain@us3l" in built.dirty()
    assert built.ran(*REPRO) == sorted([*OF_US3L, "calibrate us3l", "linear us3l"]), "one training was there"
    assert built.clean()

    flip(built.folder / CHECKPOINT)
    (built.folder / CHECKPOINT).with_name("seed1.safetensors").unlink()
    built.run("us3l", "commit")
    assert "digits-pretrain@us3l" in built.dirty()
    built.run("dvc", "checkout", "--quiet", "--force")
    built.run(*SNAKEMAKE)
    assert built.clean()

    built.edit(seeds(0))
    built.run(*SNAKEMAKE)
    assert built.clean()


def test_an_edit_while_snakemake_runs_is_an_edit_for_both(built: Checkout) -> None:
    """The evaluations end after the edit."""
    module = built.folder / "us3l/evaluation/linear.py"
    wait = "    import os, time\n    while not os.path.exists('edited'):\n        time.sleep(0.01)\n"
    module.write_text(module.read_text().replace("    log(", f"{wait}    log("))
    built.edit(temperature(0.3))
    log = built.folder / "runs" / "log"
    log.unlink()
    building = built.start(*SNAKEMAKE)
    until(lambda: log.exists() and "calibrate us3l" in log.read_text(), "the calibration")
    assert building.poll() is None
    built.edit(temperature(0.4))
    (built.folder / "edited").touch()
    building.communicate()
    assert "digits-pretrain@us3l" in built.dirty()
    assert built.pending()["pretrain"] == 1
    assert built.ran(*REPRO) == OF_US3L
    assert built.clean()


def test_a_study_that_dvc_yaml_lacks_is_named_and_the_others_are_recorded(checkout: Checkout) -> None:
    checkout.edit(lambda params: params["studies"].update(extra=params["studies"]["digits"]))
    checkout.edit(lambda params: params.update(build=["digits", "extra"]))
    output = checkout.run(*SNAKEMAKE)
    assert "us3l: dvc.yaml lacks extra-pretrain@us-simsiam, extra-pretrain@us3l" in output
    assert checkout.clean()
    remedy = "to record them run `us3l dvc` with the study under build, then `us3l commit`"
    assert f"dvc.lock lacks 7 stages; {remedy}\n" in checkout.run("us3l", "verify", "extra/main")
    checkout.run("us3l", "dvc")
    checkout.run("us3l", "commit")
    assert checkout.run("us3l", "verify", "extra/main").count("holds") == 3
    assert checkout.ran(*REPRO) == []
    assert checkout.clean()

    checkout.edit(lambda params: params.update(build=["digits"]))
    assert "dvc.yaml has, beside the studies to build, extra-pretrain@us-simsiam, " in checkout.run("us3l", "plan")
    checkout.run("us3l", "dvc")
    assert "dvc.yaml" not in checkout.run("us3l", "plan")


def test_runs_that_take_weights_are_made_after_the_others_and_again_with_them(checkout: Checkout) -> None:
    """A study of its own, with every kind of protocol."""
    checkout.edit(add_takers)
    assert "dvc.yaml lacks taking-pretrain_with_teacher@pupil, " in checkout.run("us3l", "plan")
    checkout.run("us3l", "dvc")
    assert "dvc.yaml" not in checkout.run("us3l", "plan")
    trained = [f"{job} us-simsiam" for job in ("calibrate", "linear", "pretrain")] + OF_US3L
    of_pupil = [f"{job} pupil" for job in ("calibrate", "features-linear", "pretrain")]
    of_takers = ["calibrate cut", "features-linear cut", "finetune tuned", "knn cut-near", "knn near", *of_pupil]
    assert checkout.ran(*SNAKEMAKE) == sorted([*trained, *of_takers, "prepare digits"])
    assert checkout.clean()

    checkout.edit(temperature(0.4))
    assert checkout.pending() == {
        **{"plan": 1, "pretrain": 2, "calibrate": 3, "linear": 1},
        **{"features-linear": 2, "knn": 2, "finetune": 1, "table": 3},
    }
    assert checkout.ran(*SNAKEMAKE) == sorted([*OF_US3L, *of_takers])
    assert checkout.clean()

    checkout.edit(lambda params: params["studies"]["taking"]["runs"]["cut"].update(criterion="batch-norm"))
    assert checkout.ran(*REPRO) == ["calibrate cut", "features-linear cut", "knn cut-near"]
    assert checkout.clean()
    assert checkout.run("us3l", "verify", "--level", "1").count("holds") == 3


def add_takers(params: Any) -> None:
    """Have the study `taking` built too, whose runs take weights from us3l of the digits."""
    digits, training = params["studies"]["digits"], {"epochs": 2, "batch_size": 64, "optimizer": {"lr": 0.1}}
    protocols = {"near": {"kind": "knn"}, "tune": {"kind": "finetune"} | training}
    params["protocols"].update(protocols, kept={"kind": "features-linear"} | training)
    reused = {"kind": "reuse", "weights_from": "digits/us3l", "dataset": "digits"}
    taught = digits["runs"]["us3l"] | {
        "method": digits["runs"]["us3l"]["method"] | {"momentum": None, "teacher": "digits/us3l"}
    }
    runs = {
        "near": reused | {"protocol": "near"},
        "tuned": reused | {"protocol": "tune"},
        "cut-near": reused | {"weights_from": "cut", "protocol": "near"},
        "cut": {"kind": "prune", "weights_from": "digits/us3l", "criterion": "filters"},
        "pupil": taught,
    }
    tables = {
        "near": {"title": "Near", "rows": [{"label": name, "runs": name} for name in ("near", "cut-near")]},
        "kept": {"title": "Kept", "rows": [{"label": name, "runs": name} for name in ("cut", "pupil")]},
    }
    params["build"].append("taking")
    params["studies"]["taking"] = digits | {"protocol": "kept", "runs": runs, "tables": tables}


def test_what_no_table_shows_is_verified_too(built: Checkout) -> None:
    built.edit(lambda params: params["studies"]["digits"]["tables"]["main"]["rows"].pop())
    built.run(*SNAKEMAKE)
    assert built.try_("us3l", "verify")[0] == 0
    flip(built.folder / RESULTS / "checkpoints/us-simsiam/seed0.safetensors")
    assert built.try_("us3l", "verify")[0] == 1
