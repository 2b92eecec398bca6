"""Conversion of a data set's source to a store, as the stage prepare does it."""

from pathlib import Path

from us3l.data.files import Files
from us3l.data.sources.folder import FileTable
from us3l.data.sources.places import Source
from us3l.data.sources.read import read_source
from us3l.data.store import write_store


def convert(source: Source, folder: Path, downloads: Path) -> str:
    """Write the store of a source, and return its SHA-256."""
    return write_store(folder, read_source(source, downloads))


def files(folder: Path, paths: list[Path]) -> Files:
    """Return image files below a folder as the store holds them."""
    return Files(folder, FileTable(folder, paths)[:])
