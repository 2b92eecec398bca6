"""Attacks on the readers, each tried in a process of its own: what held, with the largest memory and the longest time.

    python tests/support/reader_attacks.py  # of the us3l on PYTHONPATH: a table, and a line for each that fell

One holds if it ends in a UserError, in under 5 seconds of a core and with under 1 GB more than before it. A process may
take 20 seconds and 8 GB: then it fell, too.
"""

import gzip
import io
import json
import os
import pickle
import resource
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from odd_files import odd_file
from PIL import Image
from project import RUN, params
from safetensors.torch import save as serialize

from us3l.data.sources.cifar import read_cifar
from us3l.data.sources.download import fetch
from us3l.data.sources.folder import _facts, _read_square
from us3l.data.sources.subset import read_subset
from us3l.data.store import DatasetSource, Split, SplitSource, open_store, write_store
from us3l.data.stream import Stream
from us3l.models.backbones.backbone import Backbone
from us3l.models.published.file import read
from us3l.models.published.matching import import_backbone
from us3l.models.saved_network import open_network, save_network
from us3l.params.dataset import Views
from us3l.params.reading import load
from us3l.params.runs import PretrainRun
from us3l.pipeline.integrity import checked_seal
from us3l.training.build import build_train_step
from us3l.training.trainer import Trainer
from us3l.utils import checkpoint
from us3l.utils.distributed import World
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

GIGABYTE = 2**30
Attack = tuple[str, Callable[[Path], Any], Callable[[Path], Any]]  # name, what writes the file, what reads it


def content(text: bytes | str | Callable[[], bytes]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        made = text() if callable(text) else text
        path.write_bytes(made.encode() if isinstance(made, str) else made)

    return write


def odd(kind: str) -> Callable[[Path], Any]:
    return lambda path: odd_file(path.parent, kind).rename(path)


# --- params ---------------------------------------------------------------------------------------------------------


def multiplied(first: str, form: str, times: int = 32) -> str:
    lines = [f"x{number}: &x{number} {form.replace('X', f'*x{number - 1} ')}" for number in range(1, times)]
    return "\n".join([f"x0: &x0 {first}", *lines, ""])


def of_runs(runs: dict[str, Any], **more: Any) -> Callable[[], bytes]:
    def made() -> bytes:
        whole = params() | more
        whole["studies"]["tiny"]["runs"] |= runs
        return yaml.dump(whole, Dumper=yaml.CSafeDumper, sort_keys=False).encode()

    return made


def yaml_attacks() -> Iterator[Attack]:
    texts: dict[str, Any] = {
        "lists": multiplied("[a, b]", "[X, X]"),
        "lists under build": multiplied("[a, b]", "[X, X]") + "build: *x31\n",
        "mappings": multiplied("{a: b}", "{a: X, b: X}") + "build: *x31\n",
        "merges": multiplied("{a: b}", "{<<: [X, X]}"),
        "merges of merges": multiplied("{a: b}", "{<<: {<<: [X, X]}}"),
        "merges and values": multiplied("{a: b}", "{<<: X, c: X, d: X}") + "build: *x31\n",
        "keys": multiplied("[a]", "[X, X]") + "? *x31\n: 1\n",
        "texts": f"a: &a {'x' * 100_000}\nbuild: [{'*a, ' * 50_000}*a]\n",
        "itself": "build: &a [*a, *a]",
        "itself as a method": "methods: &a {a: *a}\nbuild: []\n",
        "deep lists": "[" * 100_000,
        "deep mappings": "{a: " * 100_000,
        "deep blocks": "- " * 100_000,
        "deep keys": "? " * 100_000,
        "many keys": "{" + ", ".join(f"k{number}: 1" for number in range(250_000)) + "}",
        "5,000 digits": "build: " + "1" * 5000,
        "50,000 hexadecimal digits": "build: 0x" + "f" * 50_000,
        "base 60": "build: 1" + ":10" * 300_000,
        "an empty !!int": "build: !!int ''",
        "a !!timestamp": "build: !!timestamp x",
        "1e999": of_runs({"us3l": RUN | {"optimizer": {"lr": 1e999}}}),
        "UTF-16": "build: [tiny]".encode("utf-16"),
        "zero bytes": b"build: \0\0",
        "a line break in a long text": yaml.safe_dump(params())
        .replace("US3L", "X")
        .replace("label: X", f'label: "{"a" * 300_000}\\nb"'),
        "a chain of like": of_runs({f"r{number}": {"like": f"r{number + 1}"} for number in range(5000)}),
        "a chain of teachers": of_runs(
            {f"r{n}": RUN | {"method": RUN["method"] | {"momentum": None, "teacher": f"r{n + 1}"}} for n in range(2000)}
            | {"r2000": RUN}
        ),
        "methods that collect keys": of_runs(
            {}, methods={"m0": RUN["method"]} | {f"m{n}": {"like": f"m{n - 1}", f"k{n}": 1} for n in range(1, 20_000)}
        ),
        "widths alone": of_runs(
            {"us3l": RUN | {"widths_alone": [0.25 + n / 10_000 for n in range(5000)]}}
            | {f"r{n}": {"like": "us3l"} for n in range(3000)}
        ),
    }
    for name, text in texts.items():
        yield name, content(text), load
    for kind in ("pipe", "device", "huge", "looping link"):
        yield kind, odd(kind), load


# --- archives -------------------------------------------------------------------------------------------------------


def archive(test: bytes, **more: bytes) -> bytes:
    pixels = np.zeros((2, 3072), np.uint8)
    split = pickle.dumps({"data": pixels, "fine_labels": [0, 1]}, 2)
    members = {"meta": pickle.dumps({"fine_label_names": ["a", "b"]}, 2), "train": split, "test": test} | more
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, blob in members.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return gzip.compress(buffer.getvalue(), 1)


PAIRS = b"\x80\x02K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 40


def pickle_attacks() -> Iterator[Attack]:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 100
    member = tarfile.TarInfo("x").tobuf()
    pickles = {
        "a key that hashes for ever": PAIRS + b"}h\x00K\x01s.",
        "keys that hash for ever": PAIRS + b"}(h\x00K\x01u.",
        "a dict of them": PAIRS + b"(h\x00K\x01d.",
        "a set of them": PAIRS + b"\x8f(h\x00\x90.",
        "a frozenset of them": PAIRS + b"(h\x00\x91.",
        "a global": b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.",
        "a bytearray": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
        "a bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
        "deep lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
        "5,000,000 lists": b"\x80\x02" + b"]" * 5_000_000 + b".",
        "60,000,000 lists": b"\x80\x02" + b"]" * 60_000_000 + b".",
        "60,000,000 marks": b"\x80\x02" + b"(" * 60_000_000 + b".",
        "60,000,000 dicts": b"\x80\x02" + b"}" * 60_000_000 + b".",
        "a wide text": b"\x80\x02X" + (200_000_004).to_bytes(4, "little") + b"a" * 200_000_000 + "😀".encode() + b".",
    }
    call = lambda path: read_cifar(path, "cifar100", None)  # noqa: E731
    for name, blob in pickles.items():
        yield name, content(lambda blob=blob: archive(blob)), call
    files = {
        "400 MB of zeros": lambda: archive(b"N.", more=bytes(400_000_000)),
        "300,000 members": lambda: gzip.compress(member * 300_000, 1),
        "100,000 long names": lambda: gzip.compress((header.tobuf() + b"x".ljust(512, b"\0")) * 100_000, 1),
        "5,000,000 empty gzip members": lambda: gzip.compress(b"") * 5_000_000,
        "100 MB of zeros behind gzip": lambda: gzip.compress(b"") + bytes(100_000_000) + gzip.compress(b"x"),
    }
    for name, made in files.items():
        yield name, content(made), call
    for kind in ("pipe", "device", "huge"):
        yield kind, odd(kind), lambda path: fetch(path.as_uri(), "0" * 32, path.parent)


# --- published checkpoints------------------------------------------------------------------------------------------

NETWORK = "small-resnet"
WEIGHTS = {name: each.detach() for name, each in Backbone(NETWORK, 1).build(1.0).named_parameters()}


def saved(zipped: bool = True, **more: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": WEIGHTS, **more}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def rezipped(compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    given, buffer = zipfile.ZipFile(io.BytesIO(saved())), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as made:
        for name in given.namelist():
            last = name.rpartition("/")[2].replace(".", "_")
            made.writestr(name, entries.pop(last, given.read(name)))
        for name, blob in entries.items():
            made.writestr(f"archive/{name}", blob)
    return buffer.getvalue()


def flipped(place: int, size: int = 1) -> bytes:
    whole = bytearray(saved())
    start = whole.index(next(iter(WEIGHTS.values())).numpy().tobytes())
    whole[start + place] ^= size
    return bytes(whole)


def earlier(pickled: bytes) -> bytes:
    return b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + pickled + b"\x80\x02]."


def read_checkpoint(path: Path) -> None:
    import_backbone(path, read(path).sha256, Backbone(NETWORK, 1), None, 0.25)


def many_entries() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(200_000):
            made.writestr(f"archive/data/{number}", b"")
    return buffer.getvalue()


def storages(count: int) -> bytes:
    """A pickle of many claims of 1 GB each."""
    claim = b"(U\x07storagectorch\nFloatStorage\nU\x01%dU\x03cpuJ\x00\x00\x00\x10tQ"
    return earlier(b"\x80\x02](" + b"".join(claim.replace(b"%d", bytes([48 + n])) for n in range(count)) + b"e.")


def checkpoint_attacks() -> Iterator[Attack]:
    reduce = b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x04\x85R."
    files: dict[str, Any] = {
        "a flipped bit of a weight": lambda: flipped(0),
        "a flipped bit of another": lambda: flipped(101, 64),
        "a flipped bit of a third": lambda: flipped(5002, 8),
        "a key that hashes for ever": lambda: rezipped(data_pkl=PAIRS + b"}h\x00K\x01s."),
        "one in the earlier format": lambda: earlier(PAIRS + b"}h\x00K\x01s."),
        "a bytearray of 16 GB": lambda: rezipped(data_pkl=b"\x80\x02" + reduce),
        "one in the earlier format too": lambda: earlier(b"\x80\x02" + reduce),
        "storages of 1 GB": lambda: storages(9),
        "an entry that swells to 1 GB": lambda: rezipped(zipfile.ZIP_DEFLATED, more=bytes(2**30)),
        "a pickle that swells to 1 GB": lambda: rezipped(zipfile.ZIP_DEFLATED, data_pkl=b"\x80\x02" + b"]" * 2**30),
        "20,000,000 lists": lambda: rezipped(data_pkl=b"\x80\x02" + b"]" * 20_000_000 + b"."),
        "200,000 entries": many_entries,
        "deep lists": lambda: rezipped(data_pkl=b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."),
        "a global": lambda: saved(x=Path("x")),
        "half of it": lambda: saved()[: len(saved()) // 2],
        "half of it in the earlier format": lambda: saved(False)[: len(saved(False)) // 2],
    }
    for name, made in files.items():
        yield name, content(made), read_checkpoint
    for kind in ("pipe", "device", "huge"):
        yield kind, odd(kind), read_checkpoint


# --- records, weights and states ------------------------------------------------------------------------------------

TRAINED = PretrainRun.model_validate(
    {
        "dataset": "noise",
        "backbone": NETWORK,
        "method": {"name": "simclr", "base_loss": "infonce", "projector": {"hidden": 4, "output": 4}},
        "epochs": 4,
        "batch": {"size": 4},
        "optimizer": {"lr": 0.1},
        "regularizer": None,
    },
    strict=False,
)
VIEWS = Views.model_validate({"normalize": {"mean": [0.5], "std": [0.5]}, "pretrain": [{"flip": 0.5}] * 2})


def trainer(state: Path, run: PretrainRun = TRAINED) -> Trainer:
    """A training of noise, which continues from a state if there is one."""
    split, world = Split(np.zeros((8, 8, 8, 1), np.uint8), np.zeros(8, np.int64)), World(0, 1, torch.device("cpu"))
    step = build_train_step(run, Backbone(run.backbone, 1), 2, 0, world)
    stream = Stream(split, run.batch, VIEWS.pretrain, VIEWS.normalize, 0, world, run.method.name == "moco")
    return Trainer(run, step, stream, state, 60.0, "noise")


def train_a_little(state: Path) -> None:
    """Save the state of a training after its first epoch and a step of the second."""
    made = trainer(state)
    for shards in made.stream.shards(0):
        made.advance(shards)
    made._finish_epoch()
    made.advance(next(iter(made.stream.shards(1))))
    made.save()


def edited_state(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        train_a_little(path)
        tensors, record = checkpoint.load(path)
        about = json.loads(json.dumps({key: value for key, value in record.items() if key != "seal"}))
        change(about, tensors)
        checkpoint.save(path, tensors, about)

    return write


def entries(value: Any, count: int) -> list[Any]:
    return [{**value, "epoch": number} for number in range(count)]


def state_attacks() -> Iterator[Attack]:
    changes: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]] = {
        "the last epoch": lambda about, tensors: about.update(epoch=3),
        "behind the last epoch": lambda about, tensors: about.update(epoch=4),
        "the last epoch, with a history": lambda about, tensors: about.update(
            epoch=3, history=entries(about["history"][0], 3)
        ),
        "behind it, with a history": lambda about, tensors: about.update(
            epoch=4, history=entries(about["history"][0], 4)
        ),
        "the last step": lambda about, tensors: about.update(step=2),
        "a step too many": lambda about, tensors: about.update(step=10**9),
        "a negative epoch": lambda about, tensors: about.update(epoch=-3),
        "no epoch": lambda about, tensors: about.pop("epoch"),
        "an epoch that is a text": lambda about, tensors: about.update(epoch="1"),
        "an empty history": lambda about, tensors: about.update(history=[]),
        "a history of another rate": lambda about, tensors: about["history"][0].update(lr=9.0),
        "one value for all weights": lambda about, tensors: tensors.update(values=torch.zeros(1)),
        "weights that are not finite": lambda about, tensors: tensors["momentum_buffer"].fill_(torch.nan),
        "no weights": lambda about, tensors: tensors.pop("values"),
    }
    for name, change in changes.items():
        yield name, edited_state(change), lambda path: trainer(path)
    yield "zeros", content(bytes(10**6)), lambda path: trainer(path)


def network_of(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_network(path, Backbone(NETWORK, 1).build(0.25), NETWORK, 0.25, 1, {"seed": 0})
        tensors, record = checkpoint.load(path)
        about = {key: value for key, value in record.items() if key != "seal"}
        checkpoint.save(path, tensors, about | {"architecture": about["architecture"] | changes})

    return write


def store_with(name: str, blob: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        split = SplitSource(np.zeros(3, np.int64), np.zeros((3, 2, 2, 1), np.uint8))
        write_store(path, DatasetSource(("a",), (2, 2, 1), split, split))
        (path / name).write_bytes(blob)

    return write


def record_attacks() -> Iterator[Attack]:
    texts: dict[str, Any] = {
        "deep lists": "[" * 100_000,
        "deep mappings": '{"a":' * 100_000,
        "900 deep": '{"seal": 1, "a": ' + "[" * 900 + "]" * 900 + "}",
        "5,000 digits": '{"seal": ' + "1" * 5000 + "}",
        "40,000,000 lists": lambda: b"[" + b"[]," * 40_000_000 + b"1]",
        "UTF-16": '{"seal": 1}'.encode("utf-16"),
        "a byte order mark": '{"seal": 1}'.encode("utf-8-sig"),
        "no mapping": "3",
    }
    for name, text in texts.items():
        yield name, content(text), read_record
    for kind in ("pipe", "device", "huge"):
        yield f"{kind} as a record", odd(kind), read_record
        yield f"{kind} as weights", odd(kind), checkpoint.load
        yield f"{kind} as a list of images", odd(kind), lambda path: read_subset(path, path.parent, [])
    headers = {"deep": b"[" * 100_000, "metadata 3": b'{"__metadata__": 3}', "no header": b"\xff" * 8}
    for name, header in headers.items():
        yield f"weights: {name}", content(len(header).to_bytes(8, "little") + header), checkpoint.load
    more = serialize({"x": torch.zeros(1)}, {"us3l": "[" * 100_000})
    yield "weights: a deep record", content(more), checkpoint.load
    for name, value in {"width": 1e6, "in_channels": 10**7}.items():
        yield f"a network: {name} {value:g}", network_of(**{name: value}), open_network
    for name, blob in {
        "meta.json": b"[" * 100_000,
        "train_images.npy": b"PK\x03\x04" + bytes(99),
        "test_labels.npy": b"",
    }.items():
        yield f"a data set: {name}", store_with(name, blob), open_store
    yield "a data set: a text as meta.json", store_with("meta.json", b'"x"'), open_store
    yield (
        "seals",
        content(b'{"seal": ' + b"[" * 100_000),
        lambda path: checked_seal(path.rename(path.with_suffix(".json"))),
    )


# --- images ---------------------------------------------------------------------------------------------------------


def encoded(width: int, height: int, kind: str, mode: str = "L", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, kind, **options)
    return buffer.getvalue()


def read_image(path: Path) -> None:
    _facts(path)
    _read_square(path, 224)


def image_attacks() -> Iterator[Attack]:
    scans = encoded(4000, 4000, "JPEG", progressive=True)
    place = scans.rindex(b"\xff\xda")
    files: dict[str, Any] = {
        "1 x 150,000": lambda: encoded(1, 150_000, "PNG"),
        "150,000 x 1": lambda: encoded(150_000, 1, "PNG"),
        "1 x 5,000,000": lambda: encoded(1, 5_000_000, "PNG"),
        "9,000 x 9,000": lambda: encoded(9000, 9000, "PNG", "RGB"),
        "13,000 x 13,000": lambda: encoded(13_000, 13_000, "PNG", "1"),
        "20,000 x 20,000": lambda: encoded(20_000, 20_000, "PNG", "1"),
        "2,000 scans": scans[:place] + scans[place:-2] * 2000 + b"\xff\xd9",
        "a header of 65,535 x 65,535": b"BM" + bytes(12) + b"(\0\0\0\xff\xff\0\0\xff\xff\0\0\x01\0\x18\0" + bytes(50),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n/x{x}def x\nshowpage\n",
        "half of it": lambda: encoded(300, 300, "JPEG")[:700],
        "text": b"no image",
    }
    for name, made in files.items():
        yield name, content(made), read_image
    for kind in ("pipe", "device", "socket", "huge", "looping link", "dangling link"):
        yield kind, odd(kind), read_image


# --- measuring ------------------------------------------------------------------------------------------------------

KINDS = {
    "params (YAML)": yaml_attacks,
    "archives (pickles)": pickle_attacks,
    "published checkpoints": checkpoint_attacks,
    "records, weights, data sets": record_attacks,
    "training states": state_attacks,
    "images": image_attacks,
}


def try_attack(attack: Attack) -> tuple[str, float, int]:
    """Try an attack in a process of its own: how it ended, its seconds of a core, and its bytes of memory."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made, "input")
        child = os.fork()
        if not child:
            _end(lambda: attack[1](path), "no file")
        os.waitpid(child, 0)
        child = os.fork()
        if not child:
            os.chdir(made)
            resource.setrlimit(resource.RLIMIT_AS, (8 * GIGABYTE, 8 * GIGABYTE))
            resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
            signal.alarm(100)  # for what waits
            _end(lambda: attack[2](path), "read")
        _, status, used = os.wait4(child, 0)
    outcome = {0: "refused", 1: "traceback", 3: "read"}.get(os.waitstatus_to_exitcode(status), "killed")
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return outcome, used.ru_utime + used.ru_stime, max(0, used.ru_maxrss * 1024 - before)


def _end(call: Callable[[], Any], read: str) -> None:
    """Call, and end the process with a code for how."""
    code = 3
    try:
        call()
    except UserError:
        code = 0
    except BaseException as error:
        if read == "no file":
            print(repr(error)[:300], file=sys.stderr)
        code = 1
    os._exit(code)


def main() -> None:
    torch.set_num_threads(1)
    print("| input | attacks | held | largest memory | longest time |\n|---|---:|---:|---:|---:|")
    fell = []
    for kind, attacks in KINDS.items():
        results = {attack[0]: try_attack(attack) for attack in attacks()}
        held = {name: one for name, one in results.items() if one[0] == "refused" and one[1] < 5 and one[2] < GIGABYTE}
        fell += [f"{kind}: {name}: {results[name]}" for name in results.keys() - held.keys()]
        _, seconds, memory = zip(*results.values(), strict=True)
        print(
            f"| {kind} | {len(results)} | {len(held)} | {max(memory) / 2**20:.0f} MB | {max(seconds):.1f} s |",
            flush=True,
        )
    print(*sorted(fell), sep="\n")


if __name__ == "__main__":
    start = time.monotonic()
    main()
