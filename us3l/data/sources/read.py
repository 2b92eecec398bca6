"""Conversion of a data set's source, as params.yaml names it, to a store on disk."""

from pathlib import Path

from us3l.data.sources.cifar import read_cifar
from us3l.data.sources.digits import read_digits
from us3l.data.sources.download import fetch
from us3l.data.store import DatasetSource, write_store
from us3l.params.dataset import Cifar, Digits, Folder, Transfer

Source = Digits | Cifar | Folder | Transfer


def convert(source: Source, folder: Path, downloads: Path) -> str:
    """Write the store of `source` into `folder`, archives into `downloads`; return the SHA-256 of its contents."""
    return write_store(folder, _read(source, downloads))


def _read(source: Source, downloads: Path) -> DatasetSource:
    match source:
        case Digits():
            return read_digits(source)
        case Cifar():
            return read_cifar(fetch(source.url, source.md5, downloads), source.kind, source.subset)
        case Folder():
            from us3l.data.sources.folder import read_folder  # imports torchvision, which other sources do not need

            return read_folder(source)
        case Transfer():
            from us3l.data.sources.transfer import read_transfer

            return read_transfer(source)
