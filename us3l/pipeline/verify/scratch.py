"""The folder in which results are derived again: what lies in it counts only if this machine's verification left it.

Whoever ships a project could put forged trainings there, as if an earlier verification had been broken off. So the
folder has a token, of which the cache folder of the person who verifies has a copy.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from us3l.pipeline.run_directory import run_directory

TOKEN = "token"


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Hold `folder` alone, with what an earlier verification here left in it; remove it when the block ends well."""
    with run_directory(folder):
        copy = _copy_of_token(folder)
        if not _is_ours(folder / TOKEN, copy):
            _clear(folder)
            _write_tokens(folder / TOKEN, copy)
        yield folder
        with suppress(OSError):
            copy.unlink(missing_ok=True)


def _copy_of_token(folder: Path) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "us3l", "verify", hashlib.sha256(os.fsencode(folder.absolute())).hexdigest())


def _is_ours(token: Path, copy: Path) -> bool:
    try:
        return token.read_bytes() == copy.read_bytes() != b""
    except OSError:
        return False


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_tokens(token: Path, copy: Path) -> None:
    """Write the same token twice; without a cache folder the next verification starts anew."""
    text = secrets.token_hex()
    token.write_text(text, encoding="utf-8")
    with suppress(OSError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")
