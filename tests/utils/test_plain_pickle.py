"""Pickles that would keep a reader busy or fill its memory are refused."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from us3l.utils.plain_pickle import MOST_OPERATIONS, MOST_WIDE_TEXT, StandIn, load_plain

pytestmark = pytest.mark.usefixtures("must_end")
PAIRS = b"\x80\x02K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 40  # a pair of pairs of pairs of ...


class Point(StandIn):
    pass


STAND_INS = {("geometry", "Point"): Point}


def refusal(content: bytes) -> str:
    with pytest.raises(ValueError) as refused:
        load_plain(content, STAND_INS)
    assert len(str(refused.value)) <= 200
    return str(refused.value)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_are_read(protocol: int) -> None:
    value = {
        "a": [1, 2**40, -1.5, None, True],
        b"b": ("x", b"y" * 300, {}),
        3: [[(), (1, 2, 3, 4)]],
        "ü" * 300: "z" * 70000,
    }
    stand_ins = {("_codecs", "encode"): lambda text, *_: text.encode("latin1")}  # what bytes are in protocol 2
    if protocol == 2:
        value = {key: each for key, each in value.items() if key not in (b"b",)}
    assert load_plain(pickle.dumps(value, protocol), stand_ins) == value


@pytest.mark.parametrize(
    "end",
    [
        b"}h\x00K\x01s.",
        b"}(h\x00K\x01u.",
        b"ccollections\nOrderedDict\n]h\x00K\x01\x86a\x85R.",
        b"\x8f(h\x00\x90.",
        b"(h\x00\x91.",
    ],
    ids=["setitem", "setitems", "ordered", "set", "frozenset"],
)
def test_a_tuple_of_tuples_that_would_be_hashed_for_ever_is_refused(end: bytes) -> None:
    refusal(PAIRS + end)


@pytest.mark.parametrize("key", [(1,), 1.5, None, (), ("a", ("b",))])
def test_keys_are_texts_and_numbers(key: Any) -> None:
    assert refusal(pickle.dumps({key: 1}, 2)).endswith(f"it holds a dict with a key that is a {type(key).__name__}")


@pytest.mark.parametrize("operation", [b"]", b"}", b")", b"N", b"(", b"K\x01"])
def test_more_operations_than_a_data_set_takes_are_refused(operation: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("us3l.utils.plain_pickle._Dispatch.left", 1000)
    assert f"it has more than {MOST_OPERATIONS} operations" in refusal(b"\x80\x02" + operation * 1000 + b".")
    load_plain(b"\x80\x02" + operation * 990 + b"N.", {})


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fx.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02K\x012.",
        b"I1\n.",
        b"(lp0\n.",
        b"S'x'\n.",
    ],
)
def test_operations_that_no_data_set_needs_are_refused(content: bytes) -> None:
    assert "it holds other than plain values (operation 0x" in refusal(content)


def test_an_object_is_made_by_the_stand_in_of_its_class() -> None:
    assert isinstance(load_plain(b"\x80\x02cgeometry\nPoint\n)\x81}U\x01aK\x01sb.", STAND_INS), Point)
    for named in (b"]", b"K\x01", b"U\x01a", b"}"):
        assert "is not callable" in refusal(b"\x80\x02" + named + b")\x81.")
    assert "it asks for builtins.bytearray" in refusal(b"\x80\x02cbuiltins\nbytearray\n)\x81.")


@pytest.mark.parametrize("inst", [b"]", b"K\x01", b"cgeometry\nPoint\n"])
def test_only_a_stand_in_gets_a_state(inst: bytes) -> None:
    refusal(b"\x80\x02" + inst + b"}U\x01aK\x01sb.")
    assert isinstance(load_plain(b"\x80\x02cgeometry\nPoint\n)R}U\x01aK\x01sb.", STAND_INS), Point)


def test_an_object_outside_of_the_pickle_gets_no_state() -> None:
    found = SimpleNamespace(a=0)
    with pytest.raises(ValueError, match="it sets the state of a SimpleNamespace"):
        load_plain(b"\x80\x02K\x01Q}X\x01\0\0\0aK\x01sb.", {}, lambda address: found)
    assert found.a == 0


def test_a_long_text_that_takes_four_times_as_much_in_memory_is_refused() -> None:
    wide = ("a" * MOST_WIDE_TEXT + "😀").encode()
    assert "a long text beyond Latin-1" in refusal(b"\x80\x02X" + len(wide).to_bytes(4, "little") + wide + b".")


def test_what_a_pickle_names_outside_of_it_is_refused_and_what_it_calls_is_named() -> None:
    assert "it names objects outside of it" in refusal(b"\x80\x02K\x01Q.")
    assert "it asks for posix.system" in refusal(b"\x80\x02cposix\nsystem\n.")


def test_a_deep_nest_is_read_without_overflowing_the_stack() -> None:
    load_plain(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", STAND_INS)
