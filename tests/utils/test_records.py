"""Seals: a file of ours that was changed after it was written is refused, wherever the change is."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_files import odd_file
from safetensors.torch import load_file, save_file

from us3l.utils.checkpoint import load, save
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, read_weights, seal_of_record, seal_of_weights, write_record

ABOUT = {"params": {"lr": 0.05, "range": [0.25, 1.0]}, "data": "5eed", "seed": 0}
RECORD = {"top1": 91.25, "top5": None, "params": {"range": [0.25, 1.0], "label": "US3L"}, "seconds": 17, "good": True}
pytestmark = pytest.mark.usefixtures("must_end")
DAMAGED = "damaged: it was changed after it was written; take it back with `dvc checkout` or git, or delete it"


def tensors() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.zeros(3, dtype=torch.float16)}


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def flips(content: bytes) -> Iterator[bytes]:
    """The content with one byte changed: every byte, in its last bit, a letter's case, its first bit and all bits."""
    for place in range(len(content)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            yield content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


# --- weights --------------------------------------------------------------------------------------------------------


def test_any_flipped_byte_of_a_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed0.safetensors"
    save(path, tensors(), ABOUT)
    content = path.read_bytes()
    for changed in flips(content):
        path.write_bytes(changed)
        refusal(load, path)
    path.write_bytes(content)
    load(path)


@pytest.mark.parametrize("more", [b"\0", b"us3l", bytes(64)])
def test_bytes_after_the_weights_are_refused(tmp_path: Path, more: bytes) -> None:
    save(tmp_path / "x", tensors(), ABOUT)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes() + more)
    assert refusal(load, tmp_path / "x").endswith(DAMAGED)


def test_the_same_weights_and_record_are_the_same_bytes(tmp_path: Path) -> None:
    seals = [save(tmp_path / name, tensors(), ABOUT) for name in ("a", "b")]
    assert seals[0] == seals[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_seal_that_is_written_is_the_one_that_is_read(tmp_path: Path) -> None:
    seal = save(tmp_path / "x", tensors(), ABOUT)
    content, about = read_weights(tmp_path / "x")
    assert about == load(tmp_path / "x")[1] == {**ABOUT, "seal": seal}
    assert content == (tmp_path / "x").read_bytes()
    assert seal_of_weights(content, ABOUT) == seal


def bent(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors() | {name: change(tensors()[name])}


@pytest.mark.parametrize(
    "other",
    [
        bent("conv.weight", lambda x: x + 1e-6),
        bent("conv.weight", lambda x: x.reshape(3, 2)),
        bent("conv.bias", lambda x: x.to(torch.bfloat16)),
        bent("conv.bias", lambda x: -x),
        {"weight": tensors()["conv.weight"], "bias": tensors()["conv.bias"]},
        {"conv.weight": tensors()["conv.weight"]},
    ],
)
def test_other_values_shapes_types_or_names_have_another_seal_and_cannot_take_its_place(
    tmp_path: Path, other: dict[str, torch.Tensor]
) -> None:
    seal = save(tmp_path / "x", tensors(), ABOUT)
    assert save(tmp_path / "y", other, ABOUT) != seal
    save_file(other, tmp_path / "x", {"us3l": json.dumps({**ABOUT, "seal": seal})})
    assert refusal(load, tmp_path / "x").endswith(DAMAGED)


@pytest.mark.parametrize(
    "about", [ABOUT | {"seed": 1}, ABOUT | {"params": {}}, {**ABOUT, "more": None}, {"data": "5eed", "seed": 0}]
)
def test_another_record_has_another_seal_and_cannot_take_its_place(tmp_path: Path, about: dict[str, Any]) -> None:
    seal = save(tmp_path / "x", tensors(), ABOUT)
    assert save(tmp_path / "y", tensors(), about) != seal
    save_file(load_file(tmp_path / "x"), tmp_path / "x", {"us3l": json.dumps({**about, "seal": seal})})
    assert refusal(load, tmp_path / "x").endswith(DAMAGED)


@pytest.mark.parametrize("about", ["", "{", "{}", "3", '{"seal": null}', '{"seed": 0}', "[]"])
def test_weights_whose_record_is_not_one_of_ours_are_refused(tmp_path: Path, about: str) -> None:
    save_file(tensors(), tmp_path / "x", {"us3l": about})
    assert refusal(load, tmp_path / "x").endswith(DAMAGED)


@pytest.mark.parametrize("metadata", ["[]", "null", '{"us3l": 3}'])
def test_metadata_that_is_not_text_by_name_is_refused(tmp_path: Path, metadata: str) -> None:
    header = f'{{"__metadata__":{metadata}}}'.encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    refusal(load, tmp_path / "x")


# --- records --------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "deep" / "x.json", {**RECORD, "pair": (1, 2)})
    read = read_record(tmp_path / "deep" / "x.json")
    assert read == {**RECORD, "pair": [1, 2], "seal": read["seal"]}
    assert read["seal"] == seal_of_record({**RECORD, "pair": [1, 2]})


def test_the_same_record_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_record(tmp_path / name, RECORD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_changed_digit_of_a_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_record(path, RECORD)
    text = path.read_text()
    digits = [place for place, character in enumerate(text) if character.isdecimal()]
    assert len(digits) > 12
    for place in digits:
        path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
        assert DAMAGED in refusal(read_record, path)


def test_any_flipped_byte_of_a_record_is_refused(tmp_path: Path) -> None:
    """But for spaces between its words, which say nothing."""
    path = tmp_path / "x.json"
    write_record(path, RECORD)
    path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")))
    content = path.read_bytes()
    for changed in flips(content):
        path.write_bytes(changed)
        assert DAMAGED in refusal(read_record, path)
    path.write_bytes(content)
    read_record(path)


@pytest.mark.parametrize("kept", [0, 1, 40, -3])
def test_a_truncated_record_is_refused(tmp_path: Path, kept: int) -> None:
    write_record(tmp_path / "x", RECORD)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:kept])
    assert DAMAGED in refusal(read_record, tmp_path / "x")


@pytest.mark.parametrize("content", ["", "{}", "[]", "3", "null", '{"seal": 1}', '{"top1": 99.0}', "\xff"])
def test_what_is_no_record_of_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content, encoding="latin-1")
    assert DAMAGED in refusal(read_record, tmp_path / "x")


@pytest.mark.parametrize("key", [*RECORD, "seal"])
def test_a_record_that_lacks_an_entry_is_refused(tmp_path: Path, key: str) -> None:
    write_record(tmp_path / "x", RECORD)
    record = json.loads((tmp_path / "x").read_text())
    del record[key]
    (tmp_path / "x").write_text(json.dumps(record))
    assert DAMAGED in refusal(read_record, tmp_path / "x")


def test_the_order_of_keys_and_the_layout_do_not_matter(tmp_path: Path) -> None:
    write_record(tmp_path / "x", RECORD)
    record = json.loads((tmp_path / "x").read_text())
    turned = dict(reversed(record.items())) | {"params": dict(reversed(record["params"].items()))}
    (tmp_path / "x").write_text(json.dumps(turned))
    assert read_record(tmp_path / "x") == record
    assert seal_of_record(dict(reversed(RECORD.items()))) == seal_of_record(RECORD)


def test_an_absent_record_is_named(tmp_path: Path) -> None:
    assert "no such file; the stage before this one makes it" in refusal(read_record, tmp_path / "x.json")


def test_an_entry_that_another_version_did_not_write_is_named_with_what_to_do(tmp_path: Path) -> None:
    record, weights = tmp_path / "seed0.json", tmp_path / "seed0.safetensors"
    write_record(record, {"params": {"range": [{}]}})
    save(weights, tensors(), {"params": {}})
    said = "another version of us3l wrote it; make it again, with --force where it is up to date"
    for path, key, ask in (
        (record, "seconds", lambda: read_record(record)["seconds"]),
        (record, "epochs", lambda: read_record(record)["params"]["epochs"]),
        (record, "low", lambda: read_record(record)["params"]["range"][0]["low"]),
        (weights, "seed", lambda: load(weights)[1]["seed"]),
    ):
        with pytest.raises(UserError) as refused:
            ask()
        assert str(refused.value) == f"{path}: has no entry {key}: {said}"


@pytest.mark.parametrize(
    "metadata", ["3", '"us3l"', '["us3l"]', '{"us3l": "[[[["}', '{"us3l": "\\ud800"}', "[" * 100_000]
)
def test_a_header_of_other_content_is_refused(tmp_path: Path, metadata: str) -> None:
    header = f'{{"__metadata__":{metadata}}}'.encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    refusal(load, tmp_path / "x")


def test_a_header_of_more_bytes_than_names_take_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((2**40).to_bytes(8, "little"))
    os.truncate(tmp_path / "x", 2**31)
    assert "not a whole safetensors file" in refusal(load, tmp_path / "x")


@pytest.mark.parametrize("read", [read_record, read_weights])
@pytest.mark.parametrize(
    ("kind", "said"),
    [("pipe", "a pipe or a device, and no file"), ("device", "a pipe or a device"), ("huge", "bytes are more")],
)
def test_what_is_no_file_of_ours_is_not_waited_for(
    tmp_path: Path, read: Callable[[Path], Any], kind: str, said: str
) -> None:
    assert said in refusal(read, odd_file(tmp_path, kind))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, '{"seal": ' + "1" * 5000 + "}"])
def test_a_record_that_is_nested_deeply_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert DAMAGED in refusal(read_record, tmp_path / "x")
