"""From what params.yaml calls a data set's source to a store on disk."""

import hashlib
import time
from pathlib import Path

import numpy as np

from us3l.data.cifar import read_cifar
from us3l.data.download import fetch
from us3l.data.store import Contents, Unwritten, write_store
from us3l.errors import UserError
from us3l.params.data import Cifar, Digits, Folder, Transfer
from us3l.plan import DatasetPlan
from us3l.provenance import identify, record
from us3l.records import write_record

Source = Digits | Cifar | Folder | Transfer


def prepare(plan: DatasetPlan, downloads: Path) -> None:
    """Write a data set and its record. Raises UserError."""
    start = time.monotonic()
    data = convert(plan.dataset.source, plan.folder, downloads)
    identity = identify("prepare", plan.recipe)
    made_from = {"data": data, **_lists(plan.dataset.source)}
    write_record(plan.record, {**record(identity, None, time.monotonic() - start), **made_from})


def _lists(source: Source) -> dict[str, str]:
    """The SHA-256 of the list of images, where a source has one."""
    if not (isinstance(source, Folder) and source.subset):
        return {}
    return {"subset": hashlib.sha256(Path(source.subset).read_bytes()).hexdigest()}


def convert(source: Source, folder: Path, downloads: Path) -> str:
    """Write the store of `source` into `folder`, archives into `downloads`; the SHA-256 of its contents."""
    return write_store(folder, _read(source, downloads))


def _read(source: Source, downloads: Path) -> Contents:
    match source:
        case Digits():
            return _read_digits(source)
        case Cifar():
            return read_cifar(fetch(source.url, source.md5, downloads), source.kind, source.subset)
        case Folder():
            from us3l.data.folder import read_folder  # brings torchvision, which the other sources do without

            return read_folder(source)
        case Transfer():
            from us3l.data.transfer import read_transfer

            return read_transfer(source)


def _read_digits(source: Digits) -> Contents:
    """8x8 images whose values 0..16 become 0..255."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    everything = np.arange(len(images))
    try:
        train, test = train_test_split(
            everything, test_size=source.test_fraction, stratify=digits.target, random_state=0
        )
    except ValueError as error:
        raise UserError(f"test_fraction {source.test_fraction} of {len(images)} digits: {error}") from None
    return Contents(
        classes=tuple(str(name) for name in digits.target_names),
        shape=(8, 8, 1),
        train=Unwritten(digits.target[train], [images[train]]),
        test=Unwritten(digits.target[test], [images[test]]),
    )
