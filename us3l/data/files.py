"""Images that stay in their files: their paths, and their sizes and hashes when the data set was prepared."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from us3l.utils.errors import UserError
from us3l.utils.reading import read_plain


def table_dtype(longest: int) -> np.dtype:
    """Return the dtype of a table of image files, whose paths below the folder have at most `longest` bytes."""
    return np.dtype([("path", f"S{longest}"), ("bytes", "<i8"), ("height", "<i4"), ("width", "<i4"), ("sha256", "S64")])


@dataclass(frozen=True)
class Files:
    """Image files below `folder`; table: [N] of `table_dtype`."""

    folder: Path
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.table["path"][index])

    def read(self, index: int) -> bytes:
        """Read the bytes of an image. Raises UserError where they are not those in the table."""
        path = self.path(index)
        try:
            content = read_plain(path, int(self.table["bytes"][index]))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {self._remedy}") from None
        if hashlib.sha256(content).hexdigest().encode() != self.table["sha256"][index]:
            raise UserError(f"{path}: is another image than when the data set was prepared; {self._remedy}")
        return content

    def check(self) -> None:
        """Raise UserError where a file is missing or has another size; its content is checked when it is read."""
        folder = os.fspath(self.folder)
        rows = zip(self.table["path"].tolist(), self.table["bytes"].tolist(), strict=True)
        for index, (name, size) in enumerate(rows):
            try:
                actual = os.stat(f"{folder}/{os.fsdecode(name)}").st_size  # without a Path: a million take 4 seconds
            except (OSError, ValueError) as error:  # the latter for a zero byte in the name
                what = getattr(error, "strerror", "no name of a file")
                raise UserError(f"{self.path(index)}: cannot be found ({what}); {self._remedy}") from None
            if actual != size:
                path, what = self.path(index), f"has {actual} bytes, and had {size} when the data set was prepared"
                raise UserError(f"{path}: {what}; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"put it back, or run `us3l prepare --force` for the images in {self.folder}"
