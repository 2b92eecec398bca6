"""What is fuzzed: for each reader its valid inputs, hostile ones of its kind, and the call that reads a file."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from project import params
from reader_attacks import NETWORK, TRAINED, WEIGHTS, train_a_little, trainer
from safetensors.torch import save as serialize

from us3l.data.picture import open_picture
from us3l.data.sources.cifar import read_cifar
from us3l.data.sources.folder import _facts, _read_square
from us3l.data.store import DatasetSource, SplitSource, open_store, write_store
from us3l.models.backbones.backbone import Backbone
from us3l.models.published.file import read
from us3l.models.published.matching import import_backbone
from us3l.models.saved_network import open_network, save_network
from us3l.params.optimizer import TrainingOptimizer
from us3l.params.reading import load
from us3l.utils import checkpoint
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, seal_of_record, seal_of_weights, write_record

Make = Callable[[Random], bytes]

HUGE = (0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**4000, -(2**70), 0.0, -0.0, 1e308, float("inf"), float("nan"))
ODD = (None, True, False, "", "a" * 10_000, "\0", "x\ny", "../..", "/dev/zero", [], {}, [[]], {"": {}}, [None] * 1000)


@dataclass(frozen=True)
class Reader:
    """A reader of files: `name` of the file that it reads, `inputs` that make its content, and its call."""

    name: str
    inputs: tuple[Make, ...]
    read: Callable[[Path], Any]
    tokens: tuple[bytes, ...] = ()


# --- values of JSON and YAML ----------------------------------------------------------------------------------------


def spoiled(value: Any, random: Random) -> Any:
    """A JSON value with another one in some place, a key that is gone or another, or a value that is nested deeply."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        what = random.random()
        if what < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if what < 0.2:
            return {**value, random.choice(["", "like", "<<", "x" * 99, "1.0", "0.25"]): value[key]}
        return {**value, key: spoiled(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        place = random.randrange(len(value))
        if random.random() < 0.1:
            return value * random.choice([0, 2, 100])
        return [*value[:place], spoiled(value[place], random), *value[place + 1 :]]
    return hostile_value(random)


def hostile_value(random: Random) -> Any:
    what = random.random()
    if what < 0.4:
        return random.choice(HUGE)
    if what < 0.8:
        return random.choice(ODD)
    if what < 0.9:
        return random.randrange(-5, 5) + random.choice([0, 0.5])
    nested: Any = 1
    for _ in range(random.choice([3, 60, 200])):
        nested = [nested] if random.random() < 0.5 else {"a": nested}
    return nested


# --- params ---------------------------------------------------------------------------------------------------------


def _yaml(random: Random) -> bytes:
    content: Any = params()
    for _ in range(random.randrange(4)):
        content = spoiled(content, random)
    return _dumped(content, random)


def _dumped(content: Any, random: Random) -> bytes:
    style = random.choice([None, False, True])
    try:
        return yaml.safe_dump(content, default_flow_style=style, allow_unicode=True).encode()
    except (RecursionError, ValueError):
        return b"a: 1"


def _multiplied(random: Random) -> bytes:
    """Anchors whose aliases multiply: lists, mappings, merges, texts, and keys."""
    count, fold = random.choice([2, 5, 20, 40, 1000]), random.choice([1, 2, 9])
    first = random.choice(["[a, b]", "{a: b}", "a" * 1000, "{<<: {a: b}}"])
    aliases = lambda number: ", ".join([f"*x{number}"] * fold)  # noqa: E731
    form = random.choice(
        ["[{0}]", "{{a: *x{1}, b: [{0}]}}", "{{<<: [{0}]}}", "{{? [{0}] : 1}}", "{{<<: *x{1}, c{1}: *x{1}}}"]
    )
    lines = [f"x{number}: &x{number} {form.format(aliases(number - 1), number - 1)}" for number in range(1, count)]
    return "\n".join([f"x0: &x0 {first}", *lines, yaml.safe_dump(params())]).encode()


def _like(random: Random) -> bytes:
    """Runs and methods that are like others, in chains, circles and fans."""
    content = params()
    runs = content["studies"]["tiny"]["runs"]
    for number in range(random.choice([1, 10, 150])):
        other = random.choice([*runs, "nosuch", "tiny/us3l", f"r{number + 1}", 3])
        widths = {"widths_alone": random.choice([[1.0, 0.5], [0.25 + i / 1000 for i in range(99)], 3, [], None])}
        runs[f"r{number}"] = {"like": other, f"k{number}": 1} if random.random() < 0.3 else {"like": other, **widths}
    content["methods"] = {
        f"m{number}": {"like": f"m{number - 1}", f"k{number}": 1} for number in range(random.choice([2, 99]))
    }
    return _dumped(content, random)


def _repeated(random: Random) -> bytes:
    unit = random.choice(
        [b"[", b"{a: ", b"- ", b"? ", b"&a ", b"!!str ", b"a:\n ", b"'", b'"\\', b"|\n ", b"*a ", b"1:", b"0x"]
    )
    return b"build: " * random.randrange(2) + unit * random.choice([10, 1000, 100_000])


# --- archives of pickles --------------------------------------------------------------------------------------------

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
CODES = [
    *(b"K\x01", b"M\x00\x0c", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8, b"U\x04data", b"X\x04\0\0\0data", b"N"),
    *(
        b"\x88",
        b"G" + b"\x7f\xf0" + b"\0" * 6,
        b"]",
        b"}",
        b")",
        b"(",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"a",
        b"e",
        b"s",
    ),
    *(
        b"u",
        b"q\x00",
        b"h\x00",
        b"q\x01",
        b"h\x01",
        b"R",
        b"b",
        b"\x81",
        b"Q",
        b"2",
        b"0",
        b"1",
        b"\x8f",
        b"\x90",
        b"\x91",
    ),
    *(
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"c_codecs\nencode\n",
        b"ccollections\nOrderedDict\n",
        b"\x93",
        b"\x94",
    ),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_parameter\n", ARRAY),
    *(
        b"cbuiltins\nbytearray\n",
        b"B\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 7 + b"\x7f",
        b"\x95" + b"\xff" * 7 + b"\x7f",
    ),
]


def _codes(random: Random) -> bytes:
    """A pickle of random operations, some of them repeated many times, or one that grows from what it remembers."""
    parts = [random.choice(CODES) for _ in range(random.choice([5, 20, 200]))]
    if random.random() < 0.5:
        place = random.randrange(len(parts))
        parts[place] *= random.choice([100, 10_000, 1_000_000 // len(parts[place])])
    if random.random() < 0.3:
        fold = random.choice(
            [b"h\x00h\x00\x86q\x00", b"(h\x00h\x00h\x00h\x00tq\x00", b"]q\x00h\x00a", b"]h\x00ah\x00aq\x00"]
        )
        parts = [b"K\x01\x85q\x00", fold * random.choice([30, 1000]), b"}h\x00K\x01s"]
    return b"\x80\x02" + b"".join(parts) + b"."


def _members(random: Random, spoil: bool) -> dict[str, bytes]:
    images = np.zeros((2, 3072), np.uint8)
    content = {
        "meta": {"fine_label_names": ["apple", "bear"]},
        "train": {"data": images, "fine_labels": [0, 1]},
        "test": {"data": images, "fine_labels": [1, 0]},
    }
    protocol = random.choice([2, 3, 4])
    members = {f"cifar-100-python/{name}": pickle.dumps(each, protocol) for name, each in content.items()}
    if spoil:
        name = random.choice([*members])
        members[name] = _codes(random) if random.random() < 0.5 else mutated(members[name], random, tuple(CODES))
    return members


def _tar(members: dict[str, bytes], random: Random) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=random.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])) as tar:
        for name, blob in members.items():
            info = tarfile.TarInfo(name if random.random() < 0.95 else "x" * random.choice([99, 5000]))
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return buffer.getvalue()


def _archive(random: Random) -> bytes:
    return gzip.compress(_tar(_members(random, random.random() < 0.8), random), 1)


def _spoiled_tar(random: Random) -> bytes:
    tokens = (b"x", b"g", b"L", b"S", b"5", b"\x80\xff\xff\xff", b"99 a=b\n", b"77777777777\0")
    return gzip.compress(mutated(_tar(_members(random, False), random), random, tokens), 1)


def _swollen(random: Random) -> bytes:
    """An archive that unpacks to much more than it has, of zeros or of one operation."""
    unit = random.choice([b"\0", b"]", b"(", b"}", b"N", b")"]) * 2**20
    blob = b"\x80\x02" + unit * random.choice([1, 1, 4, 64])
    return gzip.compress(_tar({"cifar-100-python/meta": blob}, random), 1) + gzip.compress(b"") * random.choice(
        [0, 10_000]
    )


# --- published checkpoints------------------------------------------------------------------------------------------


def _saved(random: Random) -> bytes:
    buffer = io.BytesIO()
    content = {"epoch": 3, "state_dict": {f"module.encoder_q.{name}": each for name, each in WEIGHTS.items()}}
    torch.save(content, buffer, _use_new_zipfile_serialization=random.random() < 0.7)
    return buffer.getvalue()


def _zipped(random: Random) -> bytes:
    """A checkpoint whose archive is written anew, with a spoiled pickle, compressed, or with entries twice."""
    given, buffer = zipfile.ZipFile(io.BytesIO(_saved(Random(1)))), io.BytesIO()
    kind = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(buffer, "w", kind) as made:
        for name in given.namelist():
            content = given.read(name)
            if name.endswith("data.pkl"):
                content = _codes(random) if random.random() < 0.2 else mutated(content, random, tuple(CODES))
            elif random.random() < 0.02:
                content = random.choice([b"", content[:-1], content * 2, bytes(2**20)])
            made.writestr(name, content)
    return buffer.getvalue()


def _read_checkpoint(path: Path) -> None:
    import_backbone(path, read(path).sha256, Backbone(NETWORK, 1), None, 0.25)


# --- states of trainings, and networks ------------------------------------------------------------------------------

RUN = TRAINED.model_copy(update={"optimizer": TrainingOptimizer(kind="adamw", lr=0.001)})  # which counts its steps


def sealed(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> bytes:
    """Weights and a record about them, sealed as if they were ours."""
    seal = seal_of_weights(serialize(tensors), about)
    return serialize(tensors, {"us3l": json.dumps({**about, "seal": seal})})


def _file(write: Callable[[Path], Any], folder: Path) -> bytes:
    path = folder / "valid"
    write(path)
    return path.read_bytes()


def _weights(valid: Path, random: Random) -> bytes:
    """The content of a file of weights, with another record or other tensors, and its seal."""
    tensors, about = checkpoint.load(valid)
    plain: Any = {key: value for key, value in about.items() if key != "seal"}
    for _ in range(random.randrange(1, 3)):
        plain = spoiled(plain, random)
    if random.random() < 0.3:
        name = random.choice([*tensors])
        change = random.choice(
            [lambda x: x.flatten()[:1], lambda x: x * float("nan"), torch.Tensor.half, lambda x: x + 1]
        )
        tensors[name] = change(tensors[name])
    try:
        return sealed(tensors, plain if isinstance(plain, dict) else {"record": plain})
    except (RecursionError, ValueError, TypeError):
        return b""


# --- images ---------------------------------------------------------------------------------------------------------

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def _image(random: Random) -> bytes:
    buffer, kind = io.BytesIO(), random.choice(FORMATS)
    size = (random.choice([1, 2, 40, 3000]), random.choice([1, 7, 40]))
    mode = random.choice(["RGB", "L", "1"] if kind in ("BMP", "PPM") else ["RGB", "L"])
    options = {"progressive": True} if kind == "JPEG" and random.random() < 0.5 else {}
    Image.effect_noise(size, 50).convert(mode).save(buffer, kind, **options)
    content = buffer.getvalue()
    if random.random() < 0.3:  # another width or height in the header
        number = random.choice([0, 1, 65535, 2**31 - 1, 2**20])
        place = random.randrange(min(60, len(content)))
        return content[:place] + number.to_bytes(4, random.choice(["big", "little"])) + content[place + 4 :]
    return content


def _read_image(path: Path) -> None:
    with open_picture(path, path.read_bytes()) as image:
        image.convert("RGB")
    _facts(path)
    _read_square(path, 32)


# --- records --------------------------------------------------------------------------------------------------------


def _record(random: Random) -> bytes:
    content: Any = {
        "stage": "linear",
        "top1": 91.2,
        "params": params(),
        "epochs": [{"loss": [0.1, 0.2]}] * 4,
        "seed": 0,
    }
    for _ in range(random.randrange(3)):
        content = spoiled(content, random)
    try:
        seal = {"seal": seal_of_record(content)} if isinstance(content, dict) else {}
        return json.dumps({**content, **seal} if seal else content).encode()
    except (RecursionError, ValueError):
        return b"{}"


def _deep(random: Random) -> bytes:
    unit = random.choice([b"[", b'{"a":', b"[[],", b"1,", b'"a",', b"9" * 50])
    return random.choice([b"", b"[", b'{"seal": "x", "a": ']) + unit * random.choice([60, 1000, 100_000])


def _read_record(path: Path) -> None:
    """Read it as a record, and as the entries of a data set beside the arrays of a whole one."""
    store = path.parent / "store"
    (store / "meta.json").write_bytes(path.read_bytes())
    try:
        open_store(store)
    except UserError:
        read_record(path)["top1"]


def _meta(valid: bytes, random: Random) -> bytes:
    try:
        return json.dumps(spoiled(json.loads(valid), random)).encode()
    except (RecursionError, ValueError):
        return b"{}"


# --- mutation -------------------------------------------------------------------------------------------------------


def mutated(content: bytes, random: Random, tokens: tuple[bytes, ...] = ()) -> bytes:
    """The content with up to four changes: bytes flipped, cut, repeated, moved, replaced, or a token put in."""
    made = bytearray(content)
    for _ in range(random.randrange(5)):
        start = random.randrange(len(made) + 1)
        end = min(len(made), start + random.choice([1, 1, 2, 4, 16, 256]))
        piece = bytes(made[start:end])
        match random.randrange(6):
            case 0:
                made[start:end] = bytes(each ^ 1 << random.randrange(8) for each in piece)
            case 1:
                del made[start:end]
            case 2:
                made[start:end] = piece * random.choice([2, 10, 1000])
            case 3:
                made[start:start] = random.choice(tokens) if tokens else piece
            case 4:
                made[start:end] = random.randbytes(len(piece))
            case 5:
                made[start:end] = random.choice([b"\0", b"\xff", b"9"]) * len(piece)
        if random.random() < 0.03:
            del made[random.randrange(len(made) + 1) :]
    return bytes(made)


def readers(folder: Path) -> dict[str, Reader]:
    """All readers by name; their valid files lie in a folder."""
    state, network, record = folder / "valid.state", folder / "valid.network", folder / "valid.json"
    train_a_little(state)
    save_network(network, Backbone(NETWORK, 1).build(0.25), NETWORK, 0.25, 1, {"seed": 0})
    write_record(record, {"top1": 91.2})
    split = SplitSource(np.zeros(3, np.int64), np.zeros((3, 2, 2, 1), np.uint8))
    write_store(folder / "store", DatasetSource(("a",), (2, 2, 1), split, split))
    meta = (folder / "store/meta.json").read_bytes()
    return {
        "yaml": Reader(
            "params.yaml", (_yaml, _multiplied, _like, _repeated), load, (b"&a ", b"*a", b"<<: ", b"? ", b"!!int ")
        ),
        "pickle": Reader(
            "a.tar.gz",
            (*[_archive] * 8, *[_spoiled_tar] * 4, _swollen),
            lambda path: read_cifar(path, "cifar100", None),
            tuple(CODES),
        ),
        "checkpoint": Reader("a.pth.tar", (_saved, _zipped, _zipped), _read_checkpoint, tuple(CODES)),
        "state": Reader(
            "state.safetensors",
            (lambda random: _weights(state, random), lambda random: state.read_bytes()),
            trainer,
            (b'"', b"{", b"[", b"9" * 30, b"F4"),
        ),
        "network": Reader(
            "w.safetensors",
            (lambda random: _weights(network, random), lambda random: network.read_bytes()),
            open_network,
            (b'"', b"{", b"[", b"9" * 30, b"F4"),
        ),
        "image": Reader(
            "x.jpg", (_image,), _read_image, (b"\xff\xda", b"\xff\xc2", b"IHDR", b"II*\0", b"P3 9999 9999 255 ")
        ),
        "record": Reader(
            "x.json",
            (_record, _deep, lambda random: _meta(meta, random)),
            _read_record,
            (b"[", b"9" * 5000, b"NaN", b"1e999"),
        ),
    }
