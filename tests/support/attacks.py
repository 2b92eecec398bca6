"""Attacks on the results of a small project, each by someone who knows all seals and sets them again.

`LISTED` is the table of docs/attacks.md; tests/pipeline/test_attacks.py tries each. An attack works in the current
directory, the folder of the project.
"""

import base64
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from us3l.evaluation.metrics import wilson
from us3l.evaluation.predictions import decode, encode
from us3l.params.reading import load
from us3l.pipeline.identity import fingerprint
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunStage
from us3l.pipeline.requalification import record_seals, requalification_file
from us3l.pipeline.seal_cache import CACHE
from us3l.pipeline.stages.table import write_table
from us3l.utils import checkpoint
from us3l.utils.records import read_record, write_record

RESULTS = Path("results/tiny")
TABLE = RESULTS / "tables/main.json"
WIDEST, EVALUATION = (RESULTS / f"linear/us3l/seed0-{width}.json" for width in ("w100", "w025"))
TRAINING, CALIBRATION = (RESULTS / f"{stage}/us3l/seed0.json" for stage in ("pretrain", "calibrate"))
CHECKPOINT = RESULTS / "checkpoints/us3l/seed0.safetensors"
NETWORK = RESULTS / "networks/us3l/seed0-w025.safetensors"
DATA = Path("data/digits")
PREPARED = DATA / "prepare.json"
OF_STATISTICS = ("probe", "w025", "statistics")
FOUND = {"promise": "within rounding"}
Attack = Callable[[], Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """An attack, what it is on, and the lowest level of `us3l verify` that catches it; None if none does."""

    kind: str
    what: str
    level: int | None
    attack: Attack


# --- what a forger has ----------------------------------------------------------------------------------------------


def make(command: str) -> None:
    """Run a stage in this process, as its command does."""
    from typer.main import get_command

    from us3l.cli import app

    get_command(app)([*command.split(), "--force"], standalone_mode=False)


def again(*stages: str) -> None:
    """Make what follows honestly, from whatever lies there."""
    for stage in stages:
        make(f"{stage} tiny us3l 0")
    tables()


def the_plan() -> Plan:
    return Plan(load(Path("params.yaml")))


def job(stage: str) -> Any:
    return next(each for each in jobs(the_plan(), ["tiny"]) if each.stage == stage)


def tables() -> None:
    """Write the table anew from whatever the records say."""
    write_table(job("table"))


def seal(path: Path, change: Callable[[Record], Any]) -> None:
    """Change a record and seal it again."""
    record = read_record(path)
    del record["seal"]
    change(record)
    write_record(path, record)


def chain() -> None:
    """Set seals and fingerprints of weights, records and table again, from the training on, whatever was changed."""
    training, calibration, evaluation = (job(stage) for stage in ("pretrain", "calibrate", "linear"))
    _identify(training)
    weights = checkpoint.save(CHECKPOINT, checkpoint.load(CHECKPOINT)[0], _identity(training, TRAINING))
    seal(TRAINING, lambda record: record.update(checkpoint=weights))
    _identify(calibration)
    networks = {}
    for path in calibration.run.networks(0):
        tensors, about = checkpoint.load(path)
        shape = {key: about[key] for key in ("width", "architecture")}
        networks[path.stem[-4:]] = checkpoint.save(path, tensors, _identity(calibration, CALIBRATION) | shape)
    seal(CALIBRATION, lambda record: record.update(networks=networks))
    _identify(evaluation)
    tables()


def _identify(stage: RunStage) -> None:
    for path, identity in stage.identities(CurrentSeals()).items():
        seal(path, lambda record, identity=identity: record.update(identity, fingerprint=fingerprint(identity)))
        if stage.stage == "linear":
            _keep(stage, path, identity)


def _keep(stage: RunStage, path: Path, identity: Record) -> None:
    """Have a classifier say that it was trained on what its record says."""
    file = stage.run.classifier(0, identity["width"])
    tensors, about = checkpoint.load(file)
    seen = {key: about[key] for key in ("image", "prepared_size", "classes")}
    sealed = checkpoint.save(file, tensors, identity | seen)
    seal(path, lambda record: record.update(classifier=sealed))


def _identity(stage: RunStage, path: Path) -> Record:
    return stage.identities(CurrentSeals())[path]


def text(path: Path, before: str, after: str) -> Attack:
    """Replace the first occurrence in a file that has it."""

    def attack() -> None:
        content = path.read_text()
        assert before in content
        path.write_text(content.replace(before, after, 1))

    return attack


def digit(path: Path, before: str) -> Attack:
    """Change the digit that follows `before`."""

    def attack() -> None:
        content = path.read_text()
        at = content.index(before) + len(before)
        path.write_text(content[:at] + str((int(content[at]) + 1) % 10) + content[at + 1 :])

    return attack


def at(record: Record, keys: tuple[str, ...]) -> Record:
    """The mapping at these keys of a record."""
    for key in keys:
        record = record[key]
    return record


def alone(path: Path, *keys: str, **values: Any) -> Attack:
    """Give keys of a record, or of the mapping at `keys` in it, other values; set the table again."""

    def attack() -> None:
        seal(path, lambda record: at(record, keys).update(values))
        tables()

    return attack


def in_table(*keys: str, **values: Any) -> Attack:
    """Give keys of the table's record, or of the mapping at `keys` in it, other values."""
    return lambda: seal(TABLE, lambda record: at(record, keys).update(values))


def cell(**values: Any) -> Attack:
    return cells(lambda known: [known[0] | values, *known[1:]])


def cells(change: Callable[[list[Record]], list[Record]]) -> Attack:
    return lambda: seal(TABLE, lambda record: record.update(cells=change(record["cells"])))


def of(path: Path, change: Callable[[Record], Any]) -> Attack:
    """Change a record, and set again what follows from it."""

    def attack() -> None:
        seal(path, change)
        chain() if path in (TRAINING, CALIBRATION) else tables()

    return attack


def new(path: Path, *keys: str, **values: Any) -> Attack:
    """Give keys of a record, or of the mapping at `keys` in it, other values, and set again what follows from it."""
    return of(path, lambda record: at(record, keys).update(values))


def told(path: Path, **values: Any) -> Attack:
    """Change what the table's record tells of a record."""
    return in_table("records", str(path), **values)


def other_code(record: Record) -> None:
    record["code"]["us3l.utils"] = "0" * 12
    record["fingerprint"] = fingerprint({key: record[key] for key in ("stage", "params", "code", "inputs")})


def longer(record: Record) -> None:
    record["epochs"].append(record["epochs"][0])


def epoch(**values: Any) -> Attack:
    return of(TRAINING, lambda record: record["epochs"][0].update(values))


def correct(images: int) -> Attack:
    return of(EVALUATION, lambda record: more_correct(record, images))


def copied(path: Path, name: str) -> Attack:
    return lambda: shutil.copy(path, path.with_name(name))


def gone(path: Path) -> Attack:
    return lambda: path.unlink()


def byte(path: Path) -> Attack:
    def attack() -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    return attack


def more_correct(record: Record, images: int) -> None:
    """Claim that so many wrong images were classified correctly, with all that follows from it."""
    labels = np.load(DATA / "test_labels.npy")
    classes = decode(record["predictions"], len(labels)).copy()
    wrong = np.flatnonzero(classes != labels)[:images]
    classes[wrong] = labels[wrong]
    correct = int((classes == labels).sum())
    top1 = 100 * correct / len(labels)
    top5 = max(record["top5"], top1)
    record |= {"predictions": encode(classes), "top1": top1, "top5": top5, "interval": wilson(correct, len(labels))}


def others_wrong(record: Record) -> None:
    """Give ten wrong images another wrong class: the accuracy stays."""
    labels = np.load(DATA / "test_labels.npy")
    classes = decode(record["predictions"], len(labels)).copy()
    wrong = np.flatnonzero(classes != labels)[:10]
    classes[wrong] = [next(c for c in range(10) if c not in (classes[image], labels[image])) for image in wrong]
    record["predictions"] = encode(classes)


def excused(attack: Attack) -> Attack:
    """Make an attack, and say of every result that another CPU made it."""

    def combined() -> None:
        attack()
        for path in (TRAINING, CALIBRATION, WIDEST, EVALUATION):
            seal(path, lambda record: record["hardware"].update(cpu="Another"))
        chain()

    return combined


def in_weights(path: Path, change: Callable[[dict[str, Any]], Any]) -> Attack:
    """Change the tensors in a file of weights, and set seals and fingerprints of all that follows again."""

    def attack() -> None:
        tensors, about = checkpoint.load(path)
        change(tensors)
        checkpoint.save(path, tensors, {key: value for key, value in about.items() if key != "seal"})
        chain()

    return attack


def larger(tensors: dict[str, Any]) -> None:
    for name in tensors:
        if tensors[name].is_floating_point():
            tensors[name] = tensors[name] * 1.01


def other_weights(tensors: dict[str, Any]) -> None:
    tensors["conv1.weight"] = tensors["conv1.weight"] * (1 + 1e-6)


def other_statistics(tensors: dict[str, Any]) -> None:
    tensors["bn1.running_var"] = tensors["bn1.running_var"] * 1.1


def twin_key(path: Path, key: str, value: str) -> Attack:
    """Put a key ahead of the true one, which JSON readers take."""
    return text(path, "{\n", f'{{\n  "{key}": {value},\n')


def forged_checkpoint() -> None:
    in_weights(CHECKPOINT, larger)()
    again("calibrate", "linear")


def forged_metadata() -> None:
    """Add metadata that the seal leaves out."""
    content = CHECKPOINT.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["note"] = "trained for 800 epochs"
    packed = json.dumps(header).encode()
    CHECKPOINT.write_bytes(len(packed).to_bytes(8, "little") + packed + content[8 + size :])


def swapped_network() -> None:
    """Put another network there, and make the memory of checked files say that it is the true one."""
    true = checkpoint.load(NETWORK)[1]["seal"]
    shutil.copy(NETWORK.with_name("seed0-w100.safetensors"), NETWORK)
    from us3l.pipeline import seal_cache

    CACHE.parent.mkdir(exist_ok=True)
    memory = sqlite3.connect(CACHE)
    memory.execute("CREATE TABLE IF NOT EXISTS checks (file PRIMARY KEY, stamp, outcome)")
    outcome = json.dumps([true, ""])
    memory.execute("REPLACE INTO checks VALUES (?, ?, ?)", (str(NETWORK), seal_cache._stamp([NETWORK])[0], outcome))
    memory.commit()


def bomb(record: Record) -> None:
    """Predictions of a few kilobytes that unpack to a gigabyte."""
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(2**20)) for _ in range(4)) + packing.flush()
    record["predictions"] = base64.b64encode(packed).decode()


def in_data(change: Callable[[dict[str, np.ndarray]], Any]) -> Attack:
    """Change the arrays of the data set, seal them, and make all that follows honestly."""

    def attack() -> None:
        arrays = {path.stem: np.load(path) for path in DATA.glob("*.npy")}
        change(arrays)
        forge_store(arrays)
        again("pretrain", "calibrate", "linear")

    return attack


def forge_store(arrays: dict[str, np.ndarray]) -> None:
    from us3l.data.store import DatasetSource, SplitSource, write_store

    meta = json.loads((DATA / "meta.json").read_text())
    train, test = (SplitSource(arrays[f"{split}_labels"], arrays[f"{split}_images"]) for split in ("train", "test"))
    data = write_store(DATA, DatasetSource(tuple(meta["classes"]), tuple(meta["shape"]), train, test))
    seal(DATA / "prepare.json", lambda record: record.update(data=data))


def show_labels(arrays: dict[str, np.ndarray]) -> None:
    """Let a bright row of each image be the number of its class."""
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"].copy(), arrays[f"{split}_labels"]
        images[np.arange(len(labels)), labels % 8] = 255
        arrays[f"{split}_images"] = images


def fewer_tests(arrays: dict[str, np.ndarray]) -> None:
    for name in ("test_images", "test_labels"):
        arrays[name] = arrays[name][:300]


def forged_meta(key: str, value: Any) -> Attack:
    def attack() -> None:
        path = DATA / "meta.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}, indent=2) + "\n")

    return attack


def appended(path: Path) -> Attack:
    """Append to a file, or begin one."""

    def attack() -> None:
        with path.open("ab") as file:
            file.write(b"\n")

    return attack


def in_params(*keys: str, **values: Any) -> Attack:
    """Give keys of the mapping at `keys` of the study other values in params.yaml."""

    def attack() -> None:
        content = yaml.safe_load(Path("params.yaml").read_text())
        at(content, ("studies", "tiny", *keys)).update(values)
        Path("params.yaml").write_text(yaml.safe_dump(content))

    return attack


def claimed_rate() -> None:
    """Claim that the training had another learning rate, in params and in all that was made."""
    in_params("runs", "us3l", "optimizer", lr=0.2)()
    chain()


def requalify(change: Callable[[Record, Record], Any]) -> Attack:
    """Say that other code made the evaluations, and requalify them; `change` forges record and requalification."""

    def attack() -> None:
        stage = "linear"
        of_stage = job(stage)
        record = read_record(of_stage.record)
        was = {**record["code"], "us3l.utils.philox": "0123456789ab"}
        found = {
            **{"stage": stage, "was": was, "now": of_stage.code, "promise": "bitwise", "largest_difference": None},
            **{key: record[key] for key in ("probe", "finished", "hardware", "versions", "git")},
        }
        for path in of_stage.records:
            seal(path, lambda each: (each.update(code=was), change(each, found)))
            _own_fingerprint(path, keys := [*of_stage.identities(CurrentSeals())[path]])
            made = read_record(path)
            _keep(of_stage, path, {key: made[key] for key in keys})
        write_record(requalification_file(of_stage), {**found, "records": record_seals(of_stage)})
        tables()

    return attack


def _own_fingerprint(path: Path, keys: list[str]) -> None:
    seal(path, lambda record: record.update(fingerprint=fingerprint({key: record[key] for key in keys})))


def planted() -> None:
    """Forge weights, and leave them as if a verification had been broken off."""
    forged_checkpoint()
    for name in ("verify-pretrain", "verify-calibrate"):
        folder = Path("runs", name)
        shutil.copytree("results", folder / "results")
        shutil.copytree("data", folder / "data")
        (folder / "token").write_text("0" * 64)


def other_probe(record: Record, found: Record) -> None:
    record["probe"]["w025"].update(top1=50.0)
    found.update(probe=record["probe"])


# --- the attacks ----------------------------------------------------------------------------------------------------

TEXT = "text of a table"
JSON = "record of a table"
EVALUATED = "record of an evaluation"
TRAINED = "record of a training or calibration"
WEIGHTS = "weights"
IMAGES = "data"
PLAN = "params, code and plan"
PROBES = "probes and requalifications"
FILES = "other files"
CIRCUMSTANCE = "circumstances"

EXCUSED = ", with another CPU as an excuse"

LISTED = (
    Listed(TEXT, "a digit in the Markdown", 0, digit(TABLE.with_suffix(".md"), "| US3L | ")),
    Listed(TEXT, "a digit in the CSV", 0, digit(TABLE.with_suffix(".csv"), "US3L,1.0,")),
    Listed(TEXT, "a digit in the LaTeX", 0, digit(TABLE.with_suffix(".tex"), "US3L & ")),
    Listed(TEXT, "an empty line more", 0, appended(TABLE.with_suffix(".md"))),
    Listed(TEXT, "the caption", 0, text(TABLE.with_suffix(".md"), "one seed", "five seeds")),
    Listed(TEXT, "a text that is gone", 0, gone(TABLE.with_suffix(".tex"))),
    Listed(JSON, "a cell's mean", 0, cell(mean=99.0)),
    Listed(JSON, "a cell's number of seeds", 0, cell(n=5, planned=5)),
    Listed(JSON, "a cell's interval", 0, cell(ci95=0.1)),
    Listed(JSON, "an invented key of a cell", 0, cell(best=99.0)),
    Listed(JSON, "a forged twin ahead of a cell", 0, cells(lambda known: [{**known[0], "mean": 99.0}, *known])),
    Listed(JSON, "the same cell twice", 0, cells(lambda known: [*known, known[0]])),
    Listed(JSON, "the order of the cells", 0, cells(lambda known: known[::-1])),
    Listed(JSON, "an invented key", 0, in_table(note="state of the art")),
    Listed(JSON, "the title", 0, in_table(title="ImageNet")),
    Listed(JSON, "the caption", 0, in_table(caption="n = 5")),
    Listed(JSON, "the hours", 0, in_table(hours=0.0)),
    Listed(JSON, "the fingerprint", 0, in_table(fingerprint="0" * 16)),
    Listed(JSON, "the seal of an input", 0, in_table("inputs", **{str(TRAINING): "0" * 64})),
    Listed(JSON, "what it tells of a record", 0, told(EVALUATION, top1=99.0)),
    Listed(JSON, "the seconds that it tells of a record", 0, told(TRAINING, seconds=1.0)),
    Listed(JSON, "a requalification that was none", 0, told(TRAINING, requalified={"promise": "yes"})),
    Listed(JSON, "a key twice, of which readers take the last", 0, twin_key(TABLE, "title", '"ImageNet"')),
    Listed(JSON, "the code that wrote it", 1, lambda: seal(TABLE, other_code)),
    Listed(EVALUATED, "top-1 alone", 1, new(EVALUATION, top1=99.0)),
    Listed(EVALUATED, "top-1 with its interval and predictions", 2, correct(20)),
    Listed(EVALUATED, "the same, of one image", 2, correct(1)),
    Listed(EVALUATED, f"the same, of five{EXCUSED}", 2, excused(correct(5))),
    Listed(EVALUATED, "other predictions of the same accuracy", 2, of(EVALUATION, others_wrong)),
    Listed(EVALUATED, f"other predictions of the same accuracy{EXCUSED}", 2, excused(of(EVALUATION, others_wrong))),
    Listed(EVALUATED, "no predictions", 1, of(EVALUATION, lambda record: record.pop("predictions"))),
    Listed(EVALUATED, "predictions that unpack to more than there are images", 1, of(EVALUATION, bomb)),
    Listed(EVALUATED, "the interval", 1, new(EVALUATION, interval=[10.0, 99.0])),
    Listed(EVALUATED, "the number of images", 1, new(EVALUATION, n=10_000)),
    Listed(EVALUATED, "top-5", 2, new(EVALUATION, top5=100.0)),
    Listed(EVALUATED, f"top-5{EXCUSED}", 2, excused(new(EVALUATION, top5=100.0))),
    Listed(EVALUATED, "parameters", 2, new(EVALUATION, parameters=7)),
    Listed(EVALUATED, f"multiply-accumulates{EXCUSED}", 2, excused(new(EVALUATION, macs=7))),
    Listed(EVALUATED, "the name of the data set", 1, new(EVALUATION, dataset="imagenet")),
    Listed(EVALUATED, "the fingerprint", 1, new(EVALUATION, fingerprint="0" * 16)),
    Listed(EVALUATED, "the record of another width", 0, copied(WIDEST, EVALUATION.name)),
    Listed(EVALUATED, "an invented key", 0, new(EVALUATION, top1_of_ensemble=99.0)),
    Listed(EVALUATED, "a key twice, of which readers take the last", 0, twin_key(EVALUATION, "top1", "99.0")),
    Listed(EVALUATED, "a word for a number", 0, new(EVALUATION, top1=True)),
    Listed(EVALUATED, "a record that is gone", 0, gone(EVALUATION)),
    Listed(TRAINED, "the losses", 3, epoch(loss=[0.1])),
    Listed(TRAINED, f"the losses{EXCUSED}", 3, excused(epoch(loss=[0.1]))),
    Listed(TRAINED, "the spread of features", 3, epoch(feature_std=[0.99])),
    Listed(TRAINED, "the learning rate of an epoch", 3, epoch(lr=0.4)),
    Listed(TRAINED, f"the learning rate of an epoch{EXCUSED}", 3, excused(epoch(lr=0.4))),
    Listed(TRAINED, "an epoch that was none", 3, of(TRAINING, longer)),
    Listed(TRAINED, "an invented key", 0, new(TRAINING, augmentation="strong")),
    Listed(TRAINED, "an invented key of an epoch", 0, epoch(accuracy=99.0)),
    Listed(TRAINED, "the seal of the checkpoint", 1, alone(TRAINING, checkpoint="0" * 64)),
    Listed(TRAINED, "a network that is none", 1, alone(CALIBRATION, "networks", w050="0" * 64)),
    Listed(WEIGHTS, "a byte in a checkpoint", 1, byte(CHECKPOINT)),
    Listed(WEIGHTS, "a byte in a network", 1, byte(NETWORK)),
    Listed(WEIGHTS, "a checkpoint that is gone", 1, gone(CHECKPOINT)),
    Listed(WEIGHTS, "metadata that no seal holds", 1, forged_metadata),
    Listed(WEIGHTS, "another network, and a forged memory of what was checked", 1, swapped_network),
    Listed(WEIGHTS, "other statistics in a network", 2, in_weights(NETWORK, other_statistics)),
    Listed(WEIGHTS, f"other statistics in a network{EXCUSED}", 2, excused(in_weights(NETWORK, other_statistics))),
    Listed(WEIGHTS, f"a millionth of a network's weights{EXCUSED}", 2, excused(in_weights(NETWORK, other_weights))),
    Listed(WEIGHTS, "a checkpoint, and all after it made again", 3, forged_checkpoint),
    Listed(WEIGHTS, "the same, left in runs/ as if it had come again", 3, planted),
    Listed(IMAGES, "a byte in an image", 1, byte(DATA / "train_images.npy")),
    Listed(IMAGES, "a byte in a label", 1, byte(DATA / "test_labels.npy")),
    Listed(IMAGES, "bytes after an array", 1, appended(DATA / "test_images.npy")),
    Listed(IMAGES, "a class name", 1, forged_meta("classes", [*"abcdefghij"])),
    Listed(IMAGES, "an invented key of meta.json", 1, forged_meta("source", "clean")),
    Listed(IMAGES, "images that show their label, and all after them made again", 3, in_data(show_labels)),
    Listed(IMAGES, "fewer test images, and all after them made again", 3, in_data(fewer_tests)),
    Listed(IMAGES, "the seal that its record states", 1, alone(PREPARED, data="0" * 64)),
    Listed(IMAGES, "an invented key of its record", 1, alone(PREPARED, images="clean")),
    Listed(PLAN, "a learning rate in params.yaml", 1, in_params("runs", "us3l", "optimizer", lr=0.2)),
    Listed(PLAN, "the same, and in all that was made from it", 3, claimed_rate),
    Listed(PLAN, "a title in params.yaml", 0, in_params("tables", "main", title="ImageNet")),
    Listed(PLAN, "a seed that was not run", 0, in_params(seeds=[0, 1])),
    Listed(PLAN, "the code in a record", 1, new(EVALUATION, "code", **{"us3l.utils.philox": "0" * 12})),
    Listed(PROBES, "the probe of an evaluation", 2, new(EVALUATION, "probe", "w025", top1=50.0)),
    Listed(PROBES, f"the probe of a calibration{EXCUSED}", 2, excused(new(CALIBRATION, *OF_STATISTICS, norm=1.0))),
    Listed(PROBES, "the probe of a training", 3, new(TRAINING, "probe", "epoch_0", "step_0", gradient_norm=[1.0])),
    Listed(PROBES, "the probe of a data set", 3, alone(PREPARED, "probe", "train", labels="0" * 64)),
    Listed(PROBES, "a requalification whose probe differs", 1, requalify(lambda _, found: found.update(probe={}))),
    Listed(PROBES, "a requalification that claims rounding", 1, requalify(lambda _, found: found.update(FOUND))),
    Listed(PROBES, "an invented key of a requalification", 1, requalify(lambda _, found: found.update(approved=True))),
    Listed(PROBES, "predictions of requalified code", 2, requalify(lambda record, _: more_correct(record, 5))),
    Listed(PROBES, "a probe, in the record and its requalification", 2, requalify(other_probe)),
    Listed(FILES, "a file among the results that no job makes", 1, appended(RESULTS / "tables/best.md")),
    Listed(FILES, "a hidden file among the results", 1, appended(RESULTS / "linear/us3l/.best")),
    Listed(FILES, "a record of a seed that no study has", 1, copied(WIDEST, "seed7-w100.json")),
    Listed(FILES, "a file in a data set", 1, appended(DATA / "more_images.npy")),
    Listed(CIRCUMSTANCE, "an invented key of the hardware", 0, new(EVALUATION, "hardware", accelerator="none")),
    Listed(CIRCUMSTANCE, "a date that is none", 0, new(EVALUATION, finished="yesterday")),
    Listed(CIRCUMSTANCE, "fewer seconds than it took", None, new(TRAINING, seconds=1.0)),
    Listed(
        CIRCUMSTANCE, "another commit, date and CPU", None, excused(new(EVALUATION, git=None, finished="2020-01-01"))
    ),
)


# --- the page -------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent.parent / "docs" / "attacks.md"
HEADING = "## The attacks\n\n"


def page(content: str) -> str:
    """The page with the table of these attacks, whatever table it had."""
    return content.partition(HEADING)[0] + HEADING + listing()


def listing() -> str:
    rows = [f"| {each.kind} | {each.what} | {'none' if each.level is None else each.level} |" for each in LISTED]
    return "\n".join(["| on | what is forged | level |", "| --- | --- | ---: |", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
