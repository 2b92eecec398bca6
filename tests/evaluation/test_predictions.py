"""The predicted classes in a record: what was packed comes back, and nothing else is unpacked."""

import base64
import zlib

import numpy as np
import pytest
import torch

from us3l.evaluation.metrics import predicted, score
from us3l.evaluation.predictions import decode, encode
from us3l.utils.errors import UserError


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize("classes", [[0], [9, 0, 3, 3], [65535, 0], range(1000)])
def test_what_was_packed_comes_back(classes: list[int]) -> None:
    assert decode(encode(np.array(classes)), len(classes)).tolist() == list(classes)


def test_random_classes_are_within_the_longest_text_that_is_read() -> None:
    classes = np.random.default_rng(0).integers(0, 65536, 50_000)
    assert (decode(encode(classes), 50_000) == classes).all()


@pytest.mark.parametrize("number", [-1, 65536])
def test_a_class_of_more_bits_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="do not fit into 16 bits"):
        encode(np.array([0, number]))


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        ["AAAA"],
        "",
        "not base64!",
        packed(b"\0" * 6)[:-4],
        packed(b"\0" * 4),
        packed(b"\0" * 8),
        packed(b"\0" * 7),
        packed(b"\0" * 2**26),
        packed(b"\0" * 6) + packed(b"\0" * 6),
        base64.b64encode(zlib.compress(b"\0" * 6) + b"more").decode(),
        base64.b64encode(b"\0" * 6).decode(),
        "\n" + packed(b"\0" * 6),
        "A" * 10_000,
        "Ä" * 8,
    ],
)
def test_any_other_text_is_refused(text: object) -> None:
    with pytest.raises(UserError):
        decode(text, 3)


def test_a_text_is_unpacked_no_further_than_its_images_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of zeros in a megabyte of text."""
    taken, truly = [], zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self.inner = truly()

        def decompress(self, content: bytes, longest: int) -> bytes:
            made = self.inner.decompress(content, longest)
            taken.append(len(made))
            return made

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(UserError, match="not the classes of exactly 1000 images"):
        decode(packed(b"\0" * 200_000), 1000)
    assert taken == [2001]


def test_the_first_of_equal_logits_is_predicted_and_none_where_they_are_no_numbers() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [0.0, float("nan"), 9.0], [float("-inf"), -1.0, float("inf")]])
    classes = predicted(logits)
    assert classes.tolist() == [1, 3, 2]
    labels = torch.tensor([1, 2, 2])
    assert score(logits, labels)["top1"] == 100 * float((classes == labels).sum()) / 3
