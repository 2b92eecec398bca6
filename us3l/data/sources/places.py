"""Where the files of a data set's source lie, and their digest; without PyTorch."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from us3l.data.sources.download import kept_at
from us3l.params.dataset import Cifar, Digits, Folder, Transfer

Source = Digits | Cifar | Folder | Transfer

TRANSFER_FOLDERS = {  # below root, as torchvision has them
    "aircraft": "fgvc-aircraft-2013b",
    "caltech101": "caltech101",
    "dtd": "dtd",
    "flowers102": "flowers-102",
    "food101": "food-101",
    "pets": "oxford-iiit-pet",
}


def places(source: Source, downloads: Path) -> list[Path]:
    """List the files and folders that a source is read from; none for the digits, which come with scikit-learn."""
    match source:
        case Cifar():
            return [kept_at(source.url, source.md5, downloads)]
        case Folder():
            return [*image_folders(source), *([Path(source.subset)] if source.subset else [])]
    return image_folders(source)


def image_folders(source: Source) -> list[Path]:
    """List the folders of image files that a source is read from."""
    match source:
        case Folder():
            return [Path(source.train), *([Path(source.test)] if source.test else [])]
        case Transfer():
            return [Path(source.root, TRANSFER_FOLDERS[source.kind])]
    return []


def digest_of_files(folders: Iterable[Path]) -> str:
    """Return the SHA-256 of names and contents of all files below some folders, but for hidden ones."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for folder in folders:
            files = _files_below(folder)
            for path, content in zip(files, pool.map(_sha256, files), strict=True):
                digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files_below(folder: Path) -> list[Path]:
    """List files; the folders of classes, but none below them, may be links."""
    children = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for child in children for path in ([child] if child.is_file() else child.rglob("[!.]*"))]
    return sorted(path for path in found if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
