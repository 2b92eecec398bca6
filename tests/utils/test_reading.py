"""Files that nobody vouches for: what is no plain file of a bounded size is refused, without waiting for it."""

from pathlib import Path

import pytest
from odd_files import odd_file

from us3l.utils.reading import MOST_DEPTH, MOST_VALUES, open_plain, parse_json, read_json, read_plain

pytestmark = pytest.mark.usefixtures("must_end")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "a pipe or a device, and no file"),
        ("device", "a pipe or a device, and no file"),
        ("socket", "No such device or address"),
        ("folder", "Is a directory"),
        ("dangling link", "No such file or directory"),
        ("looping link", "Too many levels of symbolic links"),
        ("huge", "its 1099511627776 bytes are more than the 10 that such a file may have"),
        ("zero byte", "no name of a file"),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: str, said: str) -> None:
    with pytest.raises(OSError) as refused:
        read_plain(odd_file(tmp_path, kind), 10)
    assert refused.value.strerror == said


def test_a_file_of_the_most_bytes_is_read_and_one_of_a_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    assert read_plain(path, 10) == b"0123456789"
    with pytest.raises(OSError, match="its 10 bytes are more than the 9 that such a file may have"):
        read_plain(path, 9)


@pytest.mark.parametrize("content", [b"longer than before", b""])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="it changed while it was read"), open_plain(path, 100) as file:
        file.read(3)
        path.write_bytes(content)


def test_a_file_that_is_gone_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")
    with open_plain(path, 100) as file:
        path.unlink()
        assert file.read() == b"before"


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{}", "[1, 2.5, null]", '{"a": {"b": [true, "x"]}}', "[" * MOST_DEPTH + "]" * MOST_DEPTH]
)
def test_json_of_bounded_depth_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert read_json(tmp_path / "x") == eval(text, {"null": None, "true": True})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), f"nested more than {MOST_DEPTH} deep"),
        (b'{"a":' * (MOST_DEPTH + 1) + b"1" + b"}" * (MOST_DEPTH + 1), f"nested more than {MOST_DEPTH} deep"),
        (b"[" * 100_000, f"nested more than {MOST_DEPTH} deep"),
        (b'{"a":' * 100_000, f"nested more than {MOST_DEPTH} deep"),
        (b"[" + b"1," * MOST_VALUES + b"1]", f"more than {MOST_VALUES} values"),
        (b"[" + b"[]," * MOST_VALUES + b"1]", f"more than {MOST_VALUES} values"),
        (b"1" * 5000, "limit"),
        (b"", "Expecting value"),
        (b"\xff", "can't decode byte"),
        ('{"a": 1}'.encode("utf-16"), "can't decode byte"),
        ('{"a": 1}'.encode("utf-8-sig"), "BOM"),
        (b'{"a": 1}\0', "Extra data"),
    ],
)
def test_other_json_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(content)
