"""Files of torch.save: read as torch.load reads them, and refused where they are damaged or would fill the memory."""

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from us3l.models import torch_file
from us3l.models.torch_file import NoTensors, read_torch_file

pytestmark = pytest.mark.usefixtures("must_end")
FORMATS = pytest.mark.parametrize("zipped", [True, False])


def tensors() -> dict[str, Tensor]:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    types = {"half": x.half(), "b": x.bfloat16(), "d": x.double(), "i": x.int(), "l": x.long(), "bool": x > 0}
    views = {"transposed": x.T, "slice": x[:, 2:4], "scalar": torch.tensor(3), "empty": torch.empty(0, 3)}
    return {"whole": x, "same": x, "parameter": nn.Parameter(x), **types, **views}


def saved(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def read(content: bytes) -> dict[str, Tensor]:
    return read_torch_file(io.BytesIO(content)).tensors


def refusal(content: bytes) -> str:
    with pytest.raises(ValueError) as refused:
        read(content)
    return str(refused.value)


def rewritten(change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file whose archive was written again, with entries changed by their names."""
    given, buffer = zipfile.ZipFile(io.BytesIO(saved({"state_dict": tensors()}))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name in given.namelist():
            made.writestr(name, change(name, given.read(name)))
    return buffer.getvalue()


@FORMATS
def test_tensors_are_those_that_torch_loads(zipped: bool) -> None:
    content = saved({"state_dict": tensors(), "epoch": 3, "best": None, "sizes": (1, 2)}, zipped)
    expected = torch.load(io.BytesIO(content), weights_only=True)["state_dict"]
    found = read_torch_file(io.BytesIO(content))
    assert found.entries == {"epoch": 3, "best": None, "sizes": (1, 2)}
    assert found.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found.tensors[name], tensor) and found.tensors[name].dtype == tensor.dtype, name


@FORMATS
def test_a_networks_state_and_its_optimizers_are_read(zipped: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    found = read_torch_file(
        io.BytesIO(saved({"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}, zipped))
    )
    assert all(torch.equal(each, found.tensors[name]) for name, each in network.state_dict().items())
    assert found.entries.keys() == {"optimizer"}
    assert read(saved(network.state_dict(), zipped)).keys() == network.state_dict().keys()


@pytest.mark.parametrize("beside", [False, True], ids=["a tensor", "what stands beside them"])
def test_any_flipped_byte_of_an_archives_values_is_seen(beside: bool) -> None:
    values = torch.arange(24.0)
    content = saved({"state_dict": tensors(), "optimizer": values})
    start = content.index((values if beside else tensors()["whole"]).numpy().tobytes())
    for place in range(start, start + 96):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        assert refusal(bytes(flipped)).endswith(" has another checksum than when it was written")


@FORMATS
def test_a_flipped_byte_anywhere_is_refused_or_leaves_the_tensors_as_they_were(zipped: bool) -> None:
    """The earlier format has no checksums: there the values, and numbers beside them, may be others."""
    content, draw = saved({"state_dict": tensors()}, zipped), random.Random(0)
    expected = read(content)
    for place in draw.sample(range(len(content)), 200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.randrange(8)
        try:
            found = read(bytes(flipped))
        except ValueError:
            continue
        if zipped:
            assert all(torch.equal(found[name], each) for name, each in expected.items()), place


@FORMATS
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_file_that_ends_too_early_is_refused(zipped: bool, share: float) -> None:
    content = saved({"state_dict": tensors()}, zipped)
    refusal(content[: int(share * len(content))])


def test_a_file_of_the_earlier_format_with_more_behind_it_is_refused() -> None:
    assert refusal(saved({"state_dict": tensors()}, False) + b"x") == "it has another length"


def test_an_archive_that_swells_is_refused() -> None:
    assert refusal(rewritten(lambda name, content: content, zipfile.ZIP_DEFLATED)) == "it is compressed"
    swollen = rewritten(
        lambda name, content: bytes(2**24) if name.endswith("/data/0") else content, zipfile.ZIP_DEFLATED
    )
    assert refusal(swollen) == "it is compressed"


def test_entries_that_share_their_bytes_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("archive/data.pkl", b"\x80\x02}.")
        made.writestr("archive/data/0", bytes(2**20))
        for number in range(1, 100):
            entry = zipfile.ZipInfo(f"archive/data/{number}")
            shared = made.filelist[1]
            entry.header_offset, entry.CRC = shared.header_offset, shared.CRC
            entry.file_size = entry.compress_size = shared.file_size
            made.filelist.append(entry)
    assert refusal(buffer.getvalue()) == "its entries overlap"


def test_entries_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made, warnings.catch_warnings(action="ignore"):
        for _ in range(2):
            made.writestr("archive/data.pkl", saved({"state_dict": tensors()}))
    assert refusal(buffer.getvalue()) == "its entries overlap"


def test_more_entries_than_a_checkpoint_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MOST_ENTRIES", 1000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(100):
            made.writestr(f"archive/data/{number}", b"")
    assert refusal(buffer.getvalue()).startswith("BadZipFile")


@pytest.mark.parametrize("change", [bytes(3), b"", bytes(100_000)])
def test_a_storage_of_another_length_is_refused(change: bytes) -> None:
    said = refusal(rewritten(lambda name, content: change if name.endswith("/data/0") else content))
    assert (said.startswith("ValueError: its archive/data/0 has") and said.endswith("instead of 96")) or "96" in said


def test_another_byte_order_is_refused() -> None:
    said = refusal(rewritten(lambda name, content: b"big" if name.endswith("byteorder") else content))
    assert said == "it was written on a machine of another byte order"


@FORMATS
def test_a_key_that_may_hash_for_ever_is_refused(zipped: bool) -> None:
    pair: Any = (1,)
    for _ in range(40):
        pair = (pair, pair)
    content = saved({"x": [[pair, pair]], "state_dict": tensors()}, zipped)
    assert read(content).keys() == tensors().keys()  # as no key, it is harmless
    assert "it holds a dict with a key that is a tuple" in refusal(saved({"x": {("a", "b"): 1}}, zipped))


def test_tensors_of_more_bytes_than_a_network_has_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_file, "MOST_TENSORS", 40)
    x = torch.ones(10)
    assert read(saved({"state_dict": {"x": x, "part": x[:4]}})).keys() == {"x", "part"}
    assert refusal(saved({"state_dict": {"x": x, "more": torch.ones(1)}})) == "its tensors have 44 bytes"


@pytest.mark.parametrize(
    "content", [{}, [1], {"a": 1}, {"state_dict": {}}, {"state_dict": {1: torch.ones(1)}}, {"state_dict": 3}]
)
def test_a_file_without_tensors_by_name_is_told_from_a_damaged_one(content: Any) -> None:
    with pytest.raises(NoTensors):
        read(saved(content))
