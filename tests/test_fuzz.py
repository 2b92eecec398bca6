"""A few cases of each reader's fuzzing: a file is read or refused with a UserError. More: tests/support/fuzz.py."""

from pathlib import Path

import pytest
from fuzz import try_case

CASES = {"yaml": 40, "pickle": 30, "checkpoint": 40, "state": 20, "network": 40, "image": 60, "record": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.usefixtures("must_end")
@pytest.mark.parametrize("reader", CASES)
def test_whatever_a_file_holds_it_is_read_or_refused(reader: str, folder: Path) -> None:
    answers = [try_case(reader, number, folder) for number in range(CASES[reader])]
    refused = sum(map(bool, answers))
    assert 0 < refused < len(answers), "files of both kinds are tried"
