"""Files from https:// and file:// addresses, checked by their MD5."""

import hashlib
import http
import sys
import time
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from us3l.utils.atomic import atomic_write
from us3l.utils.errors import UserError
from us3l.utils.reading import open_plain

MOST_BYTES = 1 << 29  # of an archive; those of CIFAR have 0.17 GB
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry
_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20  # bytes


def fetch(url: str, md5: str, downloads: Path) -> Path:
    """Return the file at `url`: a file:// address in place, others kept in `downloads` under their MD5.

    Raises UserError where the file cannot be read or has another MD5 (a download is then removed).
    """
    path = kept_at(url, md5, downloads)
    if url.startswith("file:"):
        _check(path, url, md5)
        return path
    if path.exists():
        _check_kept(path, url, md5)
        return path
    with atomic_write(path) as temporary:
        _download(url, temporary)
        _check(temporary, url, md5)
    return path


def kept_at(url: str, md5: str, downloads: Path) -> Path:
    """Return where the file at `url` is kept. Raises UserError for a file:// address of another machine."""
    return _local_path(url) if url.startswith("file:") else downloads / f"{md5}.tar.gz"


def _local_path(url: str) -> Path:
    address = urlsplit(url)
    if address.netloc not in ("", "localhost"):
        raise UserError(f"{url}: a file address names an absolute path after three slashes, as in file:///data/archive")
    return Path(url2pathname(address.path))


def _check_kept(path: Path, url: str, md5: str) -> None:
    try:
        _check(path, url, md5)
    except UserError:
        path.unlink()
        raise


def _check(path: Path, url: str, md5: str) -> None:
    try:
        with open_plain(path, MOST_BYTES) as file:
            actual = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{url}: {path} cannot be read ({error.strerror}); correct url in params.yaml") from None
    if actual != md5:
        raise UserError(
            f"{url}: the md5 should be {md5} and is {actual}; get the file again, or correct url or md5 in params.yaml"
        )


class _Bounded(BufferedWriter):
    """A file that refuses more than `MOST_BYTES`: a server may send for ever."""

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return super().write(content)


def _download(url: str, file: Path) -> None:
    """Download `url` to `file`, restarting after a broken connection, with a progress bar on a terminal.

    Raises UserError where the server refuses or every try fails, and OSError where the file cannot be written.
    """
    from pooch import HTTPDownloader  # here, since other sources need neither
    from requests import RequestException

    download = HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=_CHUNK,
        timeout=_TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the MD5 is that of the file as it is stored, never decompressed
    )
    for pause in (*PAUSES, None):
        try:
            with _Bounded(FileIO(file, "w")) as output:
                return download(url, output, None)
        except RequestException as error:
            response, reason = error.response, str(error)
            if response is not None:
                reason = f"{response.status_code} {response.reason}"
                if response.status_code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise UserError(f"{url}: the server answers {reason}; correct url in params.yaml") from None
        except ValueError as error:
            raise UserError(f"{url}: the server answers {error}; correct url in params.yaml") from None
        if pause is not None:
            time.sleep(pause)
    raise UserError(f"{url}: the download broke off ({reason}); run the same command again")
