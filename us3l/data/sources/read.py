"""The contents of a data set's source, as params.yaml names it."""

from pathlib import Path

from us3l.data.sources.cifar import read_cifar
from us3l.data.sources.digits import read_digits
from us3l.data.sources.download import fetch
from us3l.data.sources.places import Source
from us3l.data.store import DatasetSource
from us3l.params.dataset import Cifar, Digits, Folder, Transfer


def read_source(source: Source, downloads: Path) -> DatasetSource:
    """Open a source, after a download into `downloads` where it has an address.

    Raises UserError where it is missing or not as expected.
    """
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
