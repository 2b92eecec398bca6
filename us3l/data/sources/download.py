"""Files from https:// and file:// addresses, known by their md5; a broken download goes on where it stopped."""

import errno
import hashlib
import http.client
import ssl
import sys
import time
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from us3l.utils.errors import UserError

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before another try
_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20
_BROKEN = (URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(url: str, md5: str, downloads: Path) -> Path:
    """The file behind `url`, its md5 checked: a file:// address in place, others kept in `downloads` under their md5.

    Raises UserError when it cannot be had, or is another file than the md5 says (a download is then removed).
    """
    if url.startswith("file:"):
        path = _local_path(url)
        _check(path, url, md5)
        return path
    path, part = downloads / f"{md5}.tar.gz", downloads / f"{md5}.part"
    if path.exists():
        _check_download(path, url, md5)
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    _download(url, part)
    _check_download(part, url, md5)
    return part.replace(path)


def _local_path(url: str) -> Path:
    address = urlsplit(url)
    if address.netloc not in ("", "localhost"):
        raise UserError(f"{url}: a file address names an absolute path after three slashes, as in file:///data/archive")
    return Path(url2pathname(address.path))


def _check_download(path: Path, url: str, md5: str) -> None:
    try:
        _check(path, url, md5)
    except UserError:
        path.unlink()
        raise


def _check(path: Path, url: str, md5: str) -> None:
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{url}: {path} cannot be read ({error.strerror}); correct url in params.yaml") from None
    if actual != md5:
        raise UserError(
            f"{url}: the md5 should be {md5} and is {actual}; get the file again, or correct url or md5 in params.yaml"
        )


def _download(url: str, part: Path) -> None:
    """Complete `part`, trying again after breaks. Raises UserError; what has come then stays for the next run."""
    for pause in (*PAUSES, None):
        try:
            return _continue(url, part)
        except _BROKEN as error:
            reason = error
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise UserError(f"{part}: the disk is full; free some space and run the same command again") from None
            raise
        if isinstance(reason, HTTPError) and reason.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        elif isinstance(reason, HTTPError) and reason.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UserError(f"{url}: the server answers {reason}; correct url in params.yaml") from None
        if pause is not None:
            time.sleep(pause)
    raise UserError(f"{url}: the download broke off ({reason}); the same command continues where it stopped")


def _continue(url: str, part: Path) -> None:
    """Ask for what `part` lacks and append it, or start over when the server sends the whole file.

    Raises OSError or HTTPException when the connection breaks.
    """
    present = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={present}-"} if present else {})
    with urlopen(request, timeout=_TIMEOUT) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = present if resumed else 0
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file, total, start)
            received = file.tell()
    if total is not None and received < total:
        raise ConnectionError(f"{received} of {total} bytes came")


def _copy(response: http.client.HTTPResponse, file: BinaryIO, total: int | None, done: int) -> None:
    columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("", total=total, completed=done)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            progress.advance(bar, len(chunk))
