"""Images that stay in their files: threads decode, crop and resize those of a batch while the device computes.

Threads suffice, since Pillow releases Python's lock while it decodes and resizes: it is held for a tenth of the time.
At most the crops of two batches are in memory, and of two more where batches are shuffled for a teacher.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from us3l.data.augment.draw import box
from us3l.data.augment.resample import margins
from us3l.data.augment.views import compute_parameters, draw_numbers, finish, in_chunks, normalize_
from us3l.data.files import Files
from us3l.data.picture import open_picture
from us3l.params.dataset import Augmentation, Normalize, ResizedCrop, TestView
from us3l.utils.errors import UserError
from us3l.utils.philox import RandomKey

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Edges = tuple[int, int, int, int]  # left, top, right, bottom


class Cut(NamedTuple):
    """A box of an image, the (width, height) it is resized to, and the window of the result that is kept."""

    box: Edges
    size: tuple[int, int]
    window: Edges
    interpolation: str


class Decoded:
    """Images in files, decoded for a device. See `us3l.data.images.Images`."""

    def __init__(self, files: Files, device: torch.device) -> None:
        self.files, self.device = files, device
        self.heights, self.widths = (torch.from_numpy(files.table[key].astype(np.int64)) for key in ("height", "width"))

    def __len__(self) -> int:
        return len(self.files)

    def augmented(
        self,
        batches: Sequence[Tensor],
        augmentations: Sequence[Augmentation],
        normalize: Normalize,
        key: RandomKey,
    ) -> Iterator[list[Tensor]]:
        """Yield random views as `Images.augmented`; also raises UserError for uncropped images of different sizes."""

        def numbers(samples: Tensor) -> list[dict[str, Tensor]]:
            return [draw_numbers(augmentation, key, samples, view) for view, augmentation in enumerate(augmentations)]

        def cuts(samples: Tensor) -> list[list[Cut]]:
            drawn = zip(augmentations, numbers(samples), strict=True)
            return [self._random_cuts(augmentation.resized_crop, samples, u) for augmentation, u in drawn]

        for samples, views in zip(batches, self._decode(batches, cuts), strict=True):
            drawn = zip(views, augmentations, numbers(samples), strict=True)
            yield [_finish_crops(x, augmentation, normalize, u) for x, augmentation, u in drawn]

    def plain(self, batches: Sequence[Tensor], view: TestView, normalize: Normalize) -> Iterator[Tensor]:
        """Yield test views as `Images.plain`; raises UserError for uncropped images of different sizes."""
        for [x] in self._decode(batches, lambda samples: [self._plain_cuts(view, samples)]):
            yield normalize_(x, normalize)

    def _random_cuts(self, crop: ResizedCrop | None, samples: Tensor, numbers: dict[str, Tensor]) -> list[Cut]:
        """Return the random crops that the numbers "resized_crop" [B, 22] determine; without a crop, whole images."""
        heights, widths = self.heights[samples, None], self.widths[samples, None]
        if crop is None:
            self._require_one_size("add resized_crop to all views but that of the test")
            return [_plain_cut(TestView(), *sides) for sides in torch.cat([heights, widths], 1).tolist()]
        boxes = torch.stack(box(numbers["resized_crop"], crop, heights, widths), 1)
        return [_random_cut(crop, *each) for each in boxes.tolist()]

    def _plain_cuts(self, view: TestView, samples: Tensor) -> list[Cut]:
        if view.center_crop is None:
            self._require_one_size("add center_crop to the view of the test")
        sides = zip(self.heights[samples].tolist(), self.widths[samples].tolist(), strict=True)
        return [_plain_cut(view, height, width) for height, width in sides]

    def _require_one_size(self, remedy: str) -> None:
        if other := int(((self.heights != self.heights[0]) | (self.widths != self.widths[0])).int().argmax()):
            first, second = (f"{self.heights[i]}x{self.widths[i]}" for i in (0, other))
            raise UserError(
                f"{self.files.folder}: the images have different sizes, such as {first} and {second}; {remedy}"
            )

    def _decode(self, batches: Sequence[Tensor], cuts: Callable[[Tensor], list[list[Cut]]]) -> Iterator[list[Tensor]]:
        """Yield for each batch its views, one for each list of cuts: [B, 3, h, w] float32 in [0, 1] on the device."""
        on_cpu = [batch.cpu() for batch in batches]  # all at once: later the host would wait for the device each time
        pool = ThreadPoolExecutor(torch.get_num_threads())
        try:
            started = (_Batch(pool, self.files, samples, cuts(samples), self.device) for samples in on_cpu)
            batch = next(started, None)
            while batch:
                following = next(started, None)  # its threads decode while this batch is used
                yield batch.wait()
                batch = following
        finally:
            pool.shutdown(cancel_futures=True)


def _finish_crops(x: Tensor, augmentation: Augmentation, normalize: Normalize, numbers: dict[str, Tensor]) -> Tensor:
    """Apply the operations that follow the resized crop, then normalize."""
    rest = {name: u for name, u in numbers.items() if name != "resized_crop"}
    parameters = compute_parameters(augmentation, rest, *x.shape[2:])
    return in_chunks(x, parameters, lambda some, drawn: finish(some, augmentation, normalize, drawn))


def _random_cut(crop: ResizedCrop, top: int, left: int, height: int, width: int) -> Cut:
    size = (crop.size, crop.size)
    return Cut((left, top, left + width, top + height), size, (0, 0, *size), crop.interpolation)


def _plain_cut(view: TestView, height: int, width: int) -> Cut:
    box, shorter = (0, 0, width, height), min(height, width)
    if view.resize:
        height, width = view.resize * height // shorter, view.resize * width // shorter
    window = (0, 0, width, height)
    if view.center_crop:
        (top, _), (left, _) = (margins(side, view.center_crop) for side in (height, width))
        window = (left, top, left + view.center_crop, top + view.center_crop)
    return Cut(box, (width, height), window, view.interpolation)


class _Batch:
    """A batch that threads are decoding."""

    def __init__(
        self, pool: ThreadPoolExecutor, files: Files, samples: Tensor, views: list[list[Cut]], device: torch.device
    ) -> None:
        self.device = device
        pinned = device.type == "cuda"  # the copy to the device then runs while the host goes on
        shapes = [(len(cuts), 3, *_shape(cuts[0])) for cuts in views]
        self.views = [torch.empty(shape, dtype=torch.float32, pin_memory=pinned) for shape in shapes]
        rows = zip(*(view.numpy() for view in self.views), strict=True)
        jobs = zip(samples.tolist(), zip(*views, strict=True), rows, strict=True)
        self.futures: list[Future[None]] = [pool.submit(_decode_views, files, *job) for job in jobs]

    def wait(self) -> list[Tensor]:
        """Wait for the threads; return the views on the device in [0, 1], the overshoot of a bicubic filter clamped."""
        for future in self.futures:
            future.result()
        return [view.to(self.device, non_blocking=True).div_(255).clamp_(0, 1) for view in self.views]


def _shape(cut: Cut) -> tuple[int, int]:
    left, top, right, bottom = cut.window
    return bottom - top, right - left


def _decode_views(files: Files, sample: int, cuts: Sequence[Cut], views: Sequence[np.ndarray]) -> None:
    """Decode an image once and write each cut of it to a view, [3, h, w] float32 in [0, 255]."""
    with open_picture(files.path(sample), files.read(sample)) as file:
        image = file.convert("RGB")
    for cut, view in zip(cuts, views, strict=True):
        for channel, band in zip(view, image.crop(cut.box).split(), strict=True):
            resized = band.convert("F").resize(cut.size, FILTERS[cut.interpolation])  # float32, never rounded
            channel[:] = resized.crop(cut.window)
