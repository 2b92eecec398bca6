"""Image files that would fill the memory, keep a reader waiting or start a program are refused."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import write
from odd_files import odd_file
from PIL import Image
from sources import convert

from us3l.data.picture import MOST_BYTES, MOST_ELONGATED, MOST_PIXELS, MOST_SCANS, open_picture
from us3l.data.store import open_store
from us3l.params.dataset import Folder
from us3l.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("must_end")


def encoded(width: int, height: int, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, kind, **options)
    return buffer.getvalue()


def claimed(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and that has a few bytes of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


SCANS = encoded(8, 8, "JPEG").replace(b"\xff\xd9", b"\xff\xda\0\x02" * (MOST_SCANS + 1) + b"\xff\xd9")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
ELONGATED = f"a side is over {MOST_ELONGATED}x the other"
REFUSED = {
    "thin": (encoded(1, 150_000), ELONGATED),
    "flat": (encoded(201, 1), ELONGATED),
    "huge header": (claimed(2**31 - 1, 2**31 - 1), "exceeds limit"),
    "many pixels": (claimed(2**13, 2**13 + 1), f"8192x8193 pixels are more than {MOST_PIXELS}"),
    "scans": (SCANS, f"more than {MOST_SCANS} scans"),
    "program": (EPS, "none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
    "other": (b"%PDF-1.4 and so on", "none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
    "nothing": (b"", "none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
    "cut": (encoded(30, 30, "JPEG")[:-200], "Truncated File Read"),
}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for index in range(2):
                write(tmp_path / split / name / f"{index}.jpg", index, 12, 10)
    return tmp_path


def refusal(pets: Path, size: int | None) -> str:
    source = Folder(kind="folder", train=str(pets / "train"), test=str(pets / "val"), image_size=size)
    with pytest.raises(UserError) as refused:
        convert(source, pets / "store", pets / "downloads")
    assert not (pets / "store").exists() or list((pets / "store").iterdir()) == []
    return str(refused.value)


@pytest.mark.parametrize("size", [8, None], ids=["arrays", "files"])
@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_no_camera_takes_is_refused(pets: Path, name: str, size: int | None) -> None:
    content, said = REFUSED[name]
    path = pets / "train/dog/1.jpg"
    path.write_bytes(content)
    sentence = refusal(pets, size)
    assert sentence.startswith(f"{path}: not a readable image (") and said in sentence and "\n" not in sentence
    assert sentence.endswith("; replace or remove it")


@pytest.mark.parametrize("size", [8, None], ids=["arrays", "files"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "a pipe or a device, and no file"),
        ("device", "a pipe or a device, and no file"),
        ("socket", "No such device or address"),
        ("dangling link", "No such file or directory"),
        ("looping link", "Too many levels of symbolic links"),
        ("huge", f"its {2**40} bytes are more than the {MOST_BYTES} that such a file may have"),
    ],
)
def test_what_is_no_file_among_images_is_refused(pets: Path, kind: str, said: str, size: int | None) -> None:
    path = pets / "train/dog/1.jpg"
    path.unlink()
    odd = odd_file(pets / "train/dog", kind)
    odd.rename(path) if kind != "looping link" else path.symlink_to("1.jpg")
    assert refusal(pets, size) == f"{path}: not a readable image ({said}); replace or remove it"


def test_a_folder_with_the_name_of_an_image_is_no_image(pets: Path) -> None:
    (pets / "train/dog/x.jpg").mkdir()
    convert(
        Folder(kind="folder", train=str(pets / "train"), test=str(pets / "val"), image_size=8), pets / "s", pets / "d"
    )
    assert len(open_store(pets / "s").train.labels) == 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize(("width", "height"), [(200, 1), (1, 200), (1, 1), (300, 200)])
def test_an_honest_image_of_each_format_is_opened(kind: str, width: int, height: int) -> None:
    with open_picture(Path("x"), encoded(width, height, kind)) as image:
        assert image.convert("RGB").size == (width, height)


def test_a_progressive_jpeg_is_opened() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", progressive=True)
    with open_picture(Path("x"), buffer.getvalue()) as image:
        image.load()


def test_an_image_that_a_pipe_replaced_since_it_was_prepared_is_refused(pets: Path) -> None:
    convert(Folder(kind="folder", train=str(pets / "train"), test=str(pets / "val")), pets / "s", pets / "d")
    files = open_store(pets / "s").train.images
    path = pets / "train/cat/0.jpg"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"^{path}: cannot be read \\(a pipe or a device, and no file\\)"):
        files.read(0)
