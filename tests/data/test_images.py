"""Images that are decoded from files, against torchvision, against the same images on the device, and end to end."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
import torch
import yaml
from image_files import write
from PIL import Image
from project import params
from sources import files
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv
from waiting import SECONDS, until

from us3l.data import decoded
from us3l.data.augment import draw
from us3l.data.decoded import Decoded
from us3l.data.files import Files
from us3l.data.resident import Resident
from us3l.data.store import Split
from us3l.data.stream import Stream
from us3l.params.dataset import Affine, Augmentation, Blur, ColorJitter, Normalize, ResizedCrop, TestView
from us3l.params.runs import Batch
from us3l.utils.distributed import World
from us3l.utils.errors import UserError
from us3l.utils.philox import Purpose, RandomKey, uniform
from us3l.utils.records import read_record

CPU = torch.device("cpu")
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
AS_IT_IS = Normalize(mean=[0.0] * 3, std=[1.0] * 3)
KEY = RandomKey(3, Purpose.AUGMENT, 2)
CROP = Augmentation(resized_crop=ResizedCrop(size=24, scale=(0.2, 1.0)))
MUCH = Augmentation(
    resized_crop=ResizedCrop(size=24, scale=(0.2, 1.0), interpolation="bicubic"),
    affine=Affine(degrees=20.0, translate=0.1, scale=(0.8, 1.2)),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
    grayscale=0.2,
    blur=Blur(kernel_size=5),
    flip=0.5,
)


@pytest.fixture
def photos(tmp_path: Path) -> Files:
    """20 JPEG files of different sizes, some wide, some high, some smaller than what is cut out of them."""
    paths = [tmp_path / f"{index:02}.jpg" for index in range(20)]
    for index, path in enumerate(paths):
        write(path, index, 15 + 7 * index % 60, 19 + 11 * index % 90)
    return files(tmp_path, paths)


@pytest.fixture
def squares(tmp_path: Path) -> Files:
    """20 PNG files of 32x32."""
    paths = [tmp_path / f"{index:02}.png" for index in range(20)]
    for index, path in enumerate(paths):
        write(path, index, 32, 32)
    return files(tmp_path, paths)


def pixels(photos: Files, index: int) -> Tensor:
    """[3, H, W] float64 in [0, 1], read by Pillow here."""
    with Image.open(photos.path(index)) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255


def all_views(images: Decoded | Resident, augmentations: list[Augmentation], size: int = 8) -> list[Tensor]:
    """Each augmentation's views of all images."""
    batches = images.augmented(torch.arange(len(images)).split(size), augmentations, AS_IT_IS, KEY)
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance)


# --- what is seen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", MODES)
def test_random_crops_are_torchvisions_of_boxes_drawn_for_each_images_own_size(
    photos: Files, interpolation: str
) -> None:
    crop = ResizedCrop(size=24, scale=(0.05, 1.0), interpolation=interpolation)
    views = all_views(Decoded(photos, CPU), [Augmentation(resized_crop=crop)] * 2)
    for view, seen in enumerate(views):
        for index, ours in enumerate(seen):
            image, u = pixels(photos, index), uniform(KEY, torch.tensor([index]), view, 22)
            box = [int(edge) for edge in draw.box(u, crop, *image.shape[1:])]
            close(ours, tv.resized_crop(image, *box, [24, 24], MODES[interpolation], antialias=True).clamp(0, 1))


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(("resize", "crop"), [(32, 28), (None, 40), (40, 40)])
def test_test_views_are_torchvisions(photos: Files, interpolation: str, resize: int | None, crop: int) -> None:
    view = TestView(resize=resize, center_crop=crop, interpolation=interpolation)
    normalize = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    seen = torch.cat(list(Decoded(photos, CPU).plain(torch.arange(20).split(7), view, normalize)))
    for index, ours in enumerate(seen):
        theirs = pixels(photos, index)
        theirs = tv.resize(theirs, [resize], MODES[interpolation], antialias=True).clamp(0, 1) if resize else theirs
        close(ours, tv.normalize(tv.center_crop(theirs, [crop, crop]), normalize.mean, normalize.std), 5e-6)


@pytest.mark.parametrize("augmentation", [MUCH, CROP, Augmentation(flip=0.5), Augmentation()])
def test_files_of_one_size_are_seen_as_the_same_images_on_the_device(
    squares: Files, augmentation: Augmentation
) -> None:
    bytes_ = torch.stack([(pixels(squares, index) * 255).round().byte().permute(1, 2, 0) for index in range(20)])
    for ours, theirs in zip(
        all_views(Decoded(squares, CPU), [augmentation] * 2),
        all_views(Resident(bytes_), [augmentation] * 2),
        strict=True,
    ):
        close(ours, theirs, 5e-6 if augmentation is MUCH else 1e-6)
    for test in (TestView(), TestView(resize=20, center_crop=16, interpolation="bicubic")):
        seen = (
            torch.cat(list(images.plain([torch.arange(20)], test, AS_IT_IS)))
            for images in (Decoded(squares, CPU), Resident(bytes_))
        )
        close(*seen)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("size", [1, 7, 20])
def test_neither_threads_nor_batches_nor_neighbours_change_what_is_seen(
    photos: Files, threads: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = all_views(Decoded(photos, CPU), [MUCH, CROP], 5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for ours, theirs in zip(all_views(Decoded(photos, CPU), [MUCH, CROP], size), expected, strict=True):
        assert torch.equal(ours, theirs)
    order = torch.tensor([4, 19, 4, 0])
    [some] = Decoded(photos, CPU).augmented([order], [MUCH, CROP], AS_IT_IS, KEY)
    assert torch.equal(some[0], expected[0][order])


def test_augmentations_may_cut_to_different_sizes(photos: Files) -> None:
    small = Augmentation(resized_crop=ResizedCrop(size=9))
    assert [view.shape for view in all_views(Decoded(photos, CPU), [CROP, small])] == [(20, 3, 24, 24), (20, 3, 9, 9)]


def test_images_of_different_sizes_need_a_crop(photos: Files) -> None:
    sizes = f"{photos.folder}: the images have different sizes, such as 15x19 and 22x30"
    with pytest.raises(UserError, match=f"^{sizes}; add resized_crop to all views but that of the test$"):
        all_views(Decoded(photos, CPU), [Augmentation(flip=0.5)])
    with pytest.raises(UserError, match=f"^{sizes}; add center_crop to the view of the test$"):
        next(Decoded(photos, CPU).plain([torch.arange(2)], TestView(resize=8), AS_IT_IS))


# --- when it is decoded ---------------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that have been read so far."""
    seen, read = [], Files.read

    def noting(self: Files, index: int) -> bytes:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(Files, "read", noting)
    return seen


def test_an_image_is_decoded_once_for_both_views(photos: Files, reads: list[int]) -> None:
    all_views(Decoded(photos, CPU), [CROP, MUCH])
    assert sorted(reads) == list(range(20))


def test_as_many_images_are_decoded_at_a_time_as_there_are_threads(
    photos: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, read = Barrier(3, timeout=SECONDS), Files.read

    def waiting(self: Files, index: int) -> bytes:
        together.wait()
        return read(self, index)

    monkeypatch.setattr(Files, "read", waiting)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    next(Decoded(photos, CPU).augmented([torch.arange(6)], [CROP], AS_IT_IS, KEY))


def test_the_next_batch_and_no_other_is_decoded_while_one_is_used(
    photos: Files, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: WeakSet[Any] = WeakSet()

    class Noted(decoded._Batch):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            alive.add(self)

    monkeypatch.setattr(decoded, "_Batch", Noted)
    batches = Decoded(photos, CPU).augmented(torch.arange(20).split(4), [CROP], AS_IT_IS, KEY)
    for number, _ in enumerate(batches, 1):
        expected = min(4 * (number + 1), 20)
        until(lambda expected=expected: len(reads) == expected, f"{expected} images read")
        time.sleep(0.02)
        assert sorted(reads) == list(range(expected))
        assert len(alive) <= 2


def test_what_nobody_waits_for_is_not_decoded(photos: Files, reads: list[int]) -> None:
    batches = Decoded(photos, CPU).augmented([torch.tensor([0]), torch.arange(20).repeat(50)], [CROP], AS_IT_IS, KEY)
    next(batches)
    batches.close()
    done = len(reads)
    assert done < 1001
    time.sleep(0.05)
    assert len(reads) == done


def test_a_changed_image_is_named(photos: Files) -> None:
    content = bytearray(photos.path(5).read_bytes())
    content[-10] ^= 1
    photos.path(5).write_bytes(content)
    with pytest.raises(
        UserError, match=rf"^{photos.path(5)}: is another image than when .* prepared; put it back, or "
    ):
        all_views(Decoded(photos, CPU), [CROP])


# --- the stages -----------------------------------------------------------------------------------------------------


def test_a_stream_that_goes_on_inside_an_epoch_shows_what_is_left_of_it(photos: Files) -> None:
    split = Split(photos, np.zeros(20, np.int64))
    stream = Stream(split, Batch(size=6, shards=2), [CROP, MUCH], AS_IT_IS, 0, World(0, 1, CPU))
    whole, rest = list(stream.shards(1)), list(stream.shards(1, 2))
    assert len(whole) == 3
    assert list(stream.shards(1, 3)) == []
    assert len(rest) == 1
    for ours, theirs in zip(rest[0], whole[2], strict=True):
        assert all(map(torch.equal, ours.views, theirs.views))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_decodes_its_own_shards_only(photos: Files, reads: list[int], rank: int) -> None:
    split = Split(photos, np.zeros(20, np.int64))
    whole = list(Stream(split, Batch(size=8, shards=4), [CROP, CROP], AS_IT_IS, 0, World(0, 1, CPU)).shards(0))
    reads.clear()
    part = list(Stream(split, Batch(size=8, shards=4), [CROP, CROP], AS_IT_IS, 0, World(rank, 2, CPU)).shards(0))
    assert len(reads) == 8
    for ours, theirs in zip(part, whole, strict=True):
        for shard, expected in zip(ours, theirs[2 * rank : 2 * rank + 2], strict=True):
            assert all(map(torch.equal, shard.views, expected.views))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose data set is 24 and 8 JPEG files of two classes: bright and dark, of different sizes."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 12), ("val", 4)):
        for label, name in enumerate(("dark", "bright")):
            for index in range(count):
                path = tmp_path / f"data/raw/{split}/{name}/{index}.jpg"
                write(path, index, 20 + index, 30 - index)
                with Image.open(path) as image:
                    shaded = image.point([value // 2 + 127 * label for value in range(256)] * 3)
                shaded.save(path)

    content = params(epochs=2, batch={"size": 8})
    crop = {"resized_crop": {"size": 8}}
    content["datasets"]["digits"] = {
        "source": {"kind": "folder", "train": "data/raw/train", "test": "data/raw/val"},
        "views": {
            "normalize": {"mean": [0.5] * 3, "std": [0.3] * 3},
            "pretrain": [crop | {"flip": 0.5}] * 2,
            "linear": crop,
            "test": {"resize": 10, "center_crop": 8},
        },
    }
    content["protocols"]["quick"] |= {"epochs": 20, "batch_size": 8}
    Path("params.yaml").write_text(yaml.safe_dump(content))


STAGES = (("prepare", "digits"), *((stage, "tiny", "us3l", "0") for stage in ("pretrain", "calibrate", "linear")))


@pytest.mark.usefixtures("project")
def test_files_are_pretrained_on_calibrated_and_evaluated(us3l: Callable[..., tuple[int, str, str]]) -> None:
    for stage in STAGES:
        code, _, message = us3l(*stage)
        assert code == 0, message
    for width in ("w100", "w025"):
        result = read_record(Path(f"results/tiny/linear/us3l/seed0-{width}.json"))
        assert (result["top1"], result["n"]) == (100, 8)
    assert sum(path.stat().st_size for path in Path("data/digits").iterdir()) < 12_000
